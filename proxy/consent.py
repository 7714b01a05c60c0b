"""How much of a request is kept: the least that settings, domain, tenant and client agree to."""

from __future__ import annotations

from collections.abc import Mapping

from proxy.protocol.exchange import Level
from proxy.routing import Domain

HEADER = b"x-headrace-record"
"""Request header by which a client asks for less: `off` or `metadata`."""

_ORDER: tuple[Level, ...] = ("off", "metadata", "full")
_ASKED: Mapping[bytes, Level] = {level.encode(): level for level in _ORDER}


class Consent:
    """Knows what each domain and tenant allows."""

    def __init__(
        self, level: Level, domains: Mapping[str, Domain], tenants: Mapping[str, Level]
    ) -> None:
        self._level = level
        self._domains = domains
        self._tenants = tenants

    def level(
        self, domain: str, tenant: str, headers: Mapping[bytes, bytes], store: bool | None
    ) -> Level:
        """How much may be kept; `store` is OpenAI's field, obeyed where the domain says so.

        A value of the header that is not understood counts as `off`: it was meant to be less.
        """
        rules = self._domains.get(domain)
        if store is False and rules is not None and rules.obey_store:
            return "off"
        asked = headers.get(HEADER)
        levels = [
            self._level,
            (rules and rules.record) or "full",
            self._tenants.get(tenant, "full"),
            "full" if asked is None else _ASKED.get(asked.strip().lower(), "off"),
        ]
        return min(levels, key=_ORDER.index)
