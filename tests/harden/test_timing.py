"""A comparison that ends early is seen by its time; what is nearly a key is compared with none."""

from __future__ import annotations

import random

import pytest

from proxy import auth as checked
from proxy.auth import Authenticator
from proxy.errors import Unauthenticated
from proxy.keys.base import Key
from tests.harden.timing import BOUND, compared, secrets

KEY = "0123456789abcdef"


def test_comparison_that_ends_early_is_seen():
    deviations, median = compared(secrets()["(letter by letter)"], 1000, random.Random(1))

    assert deviations > BOUND and median > 0


@pytest.mark.parametrize("name", secrets())
def test_what_is_tried_is_wrong_in_its_end_alone(name: str):
    secret = secrets()[name]

    assert secret.accepts(secret.true)
    assert not secret.accepts(secret.true[:-1] + ("A" if secret.true[-1] != "A" else "B"))


def test_key_that_is_nearly_right_is_compared_with_none(monkeypatch: pytest.MonkeyPatch):
    """What is looked up is a keyed hash, so that it has nothing in common with what is known."""
    compared_with: list[bytes] = []
    monkeypatch.setattr(
        checked.hmac, "compare_digest", lambda a, b: compared_with.append(a) or a == b
    )
    auth = Authenticator([Key(key=KEY)])

    with pytest.raises(Unauthenticated):
        auth.authenticate({b"api-key": KEY[:-1].encode() + b"!"})
    auth.authenticate({b"api-key": KEY.encode()})

    assert len(compared_with) == 1
