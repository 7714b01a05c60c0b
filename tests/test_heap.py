"""What the C library does with memory, asked of it in a process of its own."""

from __future__ import annotations

import subprocess
import sys

THREADS = """
import ctypes, threading
from proxy import heap
heap.share()
libc = ctypes.CDLL("libc.so.6")
threads = [threading.Thread(target=libc.malloc, args=(50_000,)) for _ in range(3)]
for thread in threads: thread.start()
for thread in threads: thread.join()
libc.malloc_stats()
"""
HOLES = """
import ctypes
from pathlib import Path
from proxy import heap
libc = ctypes.CDLL("libc.so.6")
libc.malloc.restype, libc.free.argtypes = ctypes.c_void_p, [ctypes.c_void_p]

def resident():
    return int(Path("/proc/self/statm").read_text().split()[1]) * 4096

pieces = [libc.malloc(50_000) for _ in range(1000)]
for piece in pieces: ctypes.memset(piece, 1, 50_000)
for piece in pieces[:-1]: libc.free(piece)
before = resident()
heap.trim()
print(before - resident())
"""


def ran(program: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, "-c", program], capture_output=True, text=True, check=True
    )


def test_threads_have_no_heaps_of_their_own():
    told = ran(THREADS).stderr

    assert "Arena 0:" in told
    assert "Arena 1:" not in told


def test_what_is_free_is_given_back():
    assert int(ran(HOLES).stdout) > 40_000_000
