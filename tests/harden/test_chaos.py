"""A network that fails, in the short form: `make chaos` shows the whole table."""

from __future__ import annotations

import pytest

from tests.harden.chaos import FAULTS, PLACES, seen

SHORT = {
    "cloud": ("none", "refused", "reset in the answer", "half open in the answer", "truncated",
              "content-length", "chunk sizes"),
    "engine": ("none", "reset in the answer", "reset late", "half open in the answer", "truncated",
               "content-length", "chunk sizes"),
    "client": ("reset in the answer", "reset in the request", "truncated", "slow writes"),
}  # fmt: skip
"""Beginnings of the names of faults, by place."""
QUICK = [(place, f) for place in PLACES for f in FAULTS if f.name.startswith(SHORT[place])]


@pytest.mark.parametrize(("place", "fault"), QUICK, ids=lambda value: getattr(value, "name", value))
async def test_what_must_hold_holds_whatever_the_network_does(place, fault):
    found = await seen(place, fault, requests=4, seed=1)

    assert found.holds, found.line
    assert sum(found.ends.values()) == 4
