"""Namespaces: no network but a dead loopback, a read-only file system, a scratch of some MiB.

They come on top of landlock and seccomp, which hold without them; only the scratch needs them, as
nothing else bounds what is written there. Source: namespaces(7), mount_setattr(2).
"""

from __future__ import annotations

import ctypes
import os
import struct
from pathlib import Path

_NEW_MOUNTS, _NEW_USER, _NEW_NETWORK, _NEW_IPC = 0x00020000, 0x10000000, 0x40000000, 0x08000000
_PRIVATE = (1 << 18) | 16384
_NO_DEVICES = 2 | 4 | 8
"""nosuid, nodev, noexec."""
_MOUNT_SETATTR, _AT_RECURSIVE, _READ_ONLY = 442, 0x8000, 1
_AT_FDCWD = -100
_CAPSET_VERSION = 0x20080522
_PR_SET_DUMPABLE, _PR_CAPBSET_DROP = 4, 24


def enter() -> None:
    """Leave the host's network, mounts and users behind; raises OSError where that is forbidden.

    The process must have one thread.
    """
    libc = ctypes.CDLL(None, use_errno=True)
    user, group = os.geteuid(), os.getegid()
    _checked(libc.unshare(_NEW_USER | _NEW_NETWORK | _NEW_MOUNTS | _NEW_IPC))
    Path("/proc/self/setgroups").write_text("deny")
    Path("/proc/self/uid_map").write_text(f"{user} {user} 1")
    Path("/proc/self/gid_map").write_text(f"{group} {group} 1")
    _checked(libc.mount(None, b"/", None, _PRIVATE, None))
    read_only = struct.pack("=QQQQ", _READ_ONLY, 0, 0, 0)
    _checked(libc.syscall(_MOUNT_SETATTR, _AT_FDCWD, b"/", _AT_RECURSIVE, read_only, 32))


def scratch(path: str, size: int) -> None:
    """Put an empty file system of `size` bytes at `path`, for this process alone."""
    libc = ctypes.CDLL(None, use_errno=True)
    _checked(libc.unshare(_NEW_MOUNTS))
    options = f"size={size},nr_inodes=512,mode=0700".encode()
    _checked(libc.mount(b"scratch", path.encode(), b"tmpfs", _NO_DEVICES, options))
    os.chdir(path)


def drop_powers() -> None:
    """Give up all capabilities, those of the own namespace too."""
    libc = ctypes.CDLL(None, use_errno=True)
    libc.prctl(_PR_SET_DUMPABLE, 0, 0, 0, 0)
    for capability in range(64):
        libc.prctl(_PR_CAPBSET_DROP, capability, 0, 0, 0)
    header, none = struct.pack("=Ii", _CAPSET_VERSION, 0), bytes(24)
    _checked(libc.capset(header, none))


def _checked(returned: int) -> None:
    if returned < 0:
        number = ctypes.get_errno()
        raise OSError(number, os.strerror(number))
