"""The C library's heap: one for all threads, and given back what a start needed for a moment.

glibc gives each thread a heap of its own, whose holes no other thread fills. Here the interpreter's
lock keeps threads from allocating at once, for most of the time, so that their own heaps gain
little and cost a worker that records 20 MiB (docs/LOG.md). With another libc nothing happens.
"""

from __future__ import annotations

import ctypes
from contextlib import suppress

_LIBC = "libc.so.6"
_M_ARENA_MAX = -8
"""Of malloc.h: how many heaps there may be."""


def share() -> None:
    """Threads that start from now on use the one heap that is there."""
    with suppress(OSError, AttributeError):
        ctypes.CDLL(_LIBC).mallopt(_M_ARENA_MAX, 1)


def trim() -> None:
    """Give back what is free: reading a tokenizer leaves 14 MiB, which glibc would keep."""
    with suppress(OSError, AttributeError):
        ctypes.CDLL(_LIBC).malloc_trim(0)
