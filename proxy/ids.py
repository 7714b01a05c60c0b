"""Ids that nobody guesses: random bytes, fetched from the system for many ids at once.

A system call for each would cost a request more than its routing does.
"""

from __future__ import annotations

import os
from collections.abc import Iterator

_SIZE = 16
"""Bytes of an id, as in a UUID."""


def _drawn() -> Iterator[str]:
    while True:
        drawn = os.urandom(256 * _SIZE).hex()
        for at in range(0, len(drawn), 2 * _SIZE):
            yield drawn[at : at + 2 * _SIZE]


_ids = _drawn()


def new_id() -> str:
    """32 hexadecimal digits; for the event loop's thread only."""
    return next(_ids)
