"""Who asks for the least gets it."""

from __future__ import annotations

import pytest

from proxy.consent import Consent
from proxy.domains import Domain
from proxy.protocol.exchange import Level

DOMAINS = {
    "open": Domain(plan=["a"]),
    "shy": Domain(plan=["a"], record="metadata"),
    "obedient": Domain(plan=["a"], obey_store=True),
}
CONSENT = Consent("full", DOMAINS, {"secret": "off", "careful": "metadata"})


@pytest.mark.parametrize(
    ("domain", "tenant", "header", "store", "level"),
    [
        ("open", "t", None, None, "full"),
        ("open", "t", b"off", None, "off"),
        ("open", "t", b" Metadata ", None, "metadata"),
        ("open", "t", b"full", None, "full"),
        ("open", "t", b"no thanks", None, "off"),
        ("open", "careful", b"full", None, "metadata"),
        ("open", "secret", None, None, "off"),
        ("shy", "t", b"full", None, "metadata"),
        ("shy", "secret", None, None, "off"),
        ("open", "t", None, False, "full"),
        ("obedient", "t", None, False, "off"),
        ("obedient", "t", None, True, "full"),
        ("unheard of", "t", None, None, "full"),
    ],
)
def test_level(domain: str, tenant: str, header: bytes | None, store: bool | None, level: Level):
    headers = {} if header is None else {b"x-headrace-record": header}

    assert CONSENT.level(domain, tenant, headers, store) == level


def test_nobody_gets_more_than_the_settings_allow():
    assert Consent("metadata", DOMAINS, {}).level("open", "t", {}, None) == "metadata"
