"""Ids that nobody guesses: random bytes, fetched from the system for many ids at once.

A system call for each would cost a request more than its routing does.
"""

from __future__ import annotations

import os

_SIZE = 16
"""Bytes of an id, as in a UUID."""
_AT_ONCE = 256

_drawn: list[str] = []


def new_id() -> str:
    """32 hexadecimal digits; from any thread."""
    try:
        return _drawn.pop()
    except IndexError:
        digits = os.urandom(_AT_ONCE * _SIZE).hex()
        width = 2 * _SIZE
        _drawn.extend(digits[at : at + width] for at in range(width, len(digits), width))
        return digits[:width]
