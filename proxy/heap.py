"""One heap for all threads. Each has its own in glibc, whose holes no other thread fills.

Here the interpreter's lock keeps threads from allocating at once, for most of the time, so that
their own heaps gain little and cost a worker that records 10 to 20 MiB (docs/LOG.md).
"""

from __future__ import annotations

import ctypes

_M_ARENA_MAX = -8
"""Of malloc.h: how many heaps there may be."""


def share() -> None:
    """From now on threads use the one heap that is there; nothing where the libc is another."""
    try:
        ctypes.CDLL("libc.so.6").mallopt(_M_ARENA_MAX, 1)
    except (OSError, AttributeError):
        return
