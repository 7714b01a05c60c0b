"""Landlock: files that may be read, a directory that may be written, and no others.

Source: landlock(7); the system calls have the same numbers on every processor.
"""

from __future__ import annotations

import ctypes
import os
import struct
from collections.abc import Iterable

_CREATE, _ADD, _RESTRICT = 444, 445, 446
_PATH_BENEATH = 1
_PR_SET_NO_NEW_PRIVS = 38

_WRITE_FILE, _READ_FILE, _READ_DIRECTORY = 1 << 1, 1 << 2, 1 << 3
_READ = _READ_FILE | _READ_DIRECTORY
_FILES_BY_VERSION = {1: (1 << 13) - 1, 2: (1 << 14) - 1, 3: (1 << 15) - 1, 5: (1 << 16) - 1}
"""Since which version the kernel can forbid which actions on files."""
_NETWORK, _SCOPES = 0b11, 0b11
"""TCP, since version 4; abstract sockets and signals, since version 6."""
_OF_A_FILE = 1 | _WRITE_FILE | _READ_FILE | (1 << 14) | (1 << 15)


def version() -> int:
    """The kernel's; 0 where it has none."""
    return max(0, int(ctypes.CDLL(None).syscall(_CREATE, None, 0, 1)))


def restrict(readable: Iterable[str], writable: Iterable[str]) -> None:
    """Hold this thread, and what it starts, to these paths, for ever; raises OSError."""
    libc = ctypes.CDLL(None, use_errno=True)
    all_files = max(bits for since, bits in _FILES_BY_VERSION.items() if since <= version())
    rules = _rules(libc, all_files)
    for path in readable:
        _allow(libc, rules, path, _READ)
    for path in writable:
        _allow(libc, rules, path, all_files & ~1 & ~(1 << 15))
    _checked(libc.prctl(_PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0))
    _checked(libc.syscall(_RESTRICT, rules, 0))
    os.close(rules)


def _rules(libc: ctypes.CDLL, all_files: int) -> int:
    """A set of rules that so far allows nothing."""
    handled = struct.pack("=Q", all_files)
    if version() >= 4:
        handled += struct.pack("=Q", _NETWORK)
    if version() >= 6:
        handled += struct.pack("=Q", _SCOPES)
    return _checked(libc.syscall(_CREATE, handled, len(handled), 0))


def _allow(libc: ctypes.CDLL, rules: int, path: str, actions: int) -> None:
    try:
        opened = os.open(path, os.O_PATH | os.O_CLOEXEC)
    except FileNotFoundError:
        return
    try:
        if not os.path.isdir(path):
            actions &= _OF_A_FILE
        rule = struct.pack("=Qi", actions, opened)
        _checked(libc.syscall(_ADD, rules, _PATH_BENEATH, rule, 0))
    finally:
        os.close(opened)


def _checked(returned: int) -> int:
    if returned < 0:
        raise OSError(ctypes.get_errno(), "landlock is not to be had")
    return returned
