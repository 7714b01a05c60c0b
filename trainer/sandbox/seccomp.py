"""A seccomp filter: the system calls that plain Python needs, and no others.

Refused calls fail with an error number that says which kind of thing was tried. Numbers are the
kernel's, `asm/unistd_64.h` and `asm-generic/unistd.h`; source for the rest: seccomp(2).
"""

from __future__ import annotations

import ctypes
import errno
import platform
import struct

NETWORK = errno.ENETDOWN
"""What sockets fail with."""
PROCESS = errno.EPERM
"""What new processes and programs, and signals to others, fail with."""
OTHER = errno.ENOTSUP
"""What anything else fails with."""

_X86_64 = {
    "arch": 0xC000003E,
    "clone": 56,
    "clone3": 435,
    "prlimit64": 302,
    "socketpair": 53,
    # socket, connect, accept, sendmsg, recvmsg … getsockopt; accept4, recvmmsg, sendmmsg
    "network": (41, 42, 43, 46, 47, 49, 50, 51, 52, 54, 55, 288, 299, 307),
    # fork, vfork, execve; kill, tkill, tgkill, execveat, pidfd_send_signal
    "process": (57, 58, 59, 62, 200, 234, 322, 424),
    "allowed": (
        *(0, 1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 11, 12, 13, 14, 15, 16, 17, 18, 19, 20, 21, 22, 23, 24),
        *(
            25,
            26,
            27,
            28,
            32,
            33,
            35,
            39,
            40,
            44,
            45,
            48,
            60,
            63,
            72,
            73,
            74,
            75,
            77,
            78,
            79,
            80,
            81,
            82,
            83,
        ),
        *(84, 87, 89, 95, 96, 97, 98, 99, 100, 102, 104, 107, 108, 110, 111, 115, 121, 124, 127),
        *(128, 131, 137, 138, 143, 145, 146, 147, 158, 186, 201, 202, 204, 217, 218, 219, 221),
        *(228, 229, 230, 231, 232, 233, 257, 258, 262, 263, 264, 266, 267, 269, 270, 271, 273),
        *(274, 277, 281, 283, 285, 286, 290, 291, 292, 293, 309, 316, 318, 324, 326, 332, 334, 439),
    ),
}
_AARCH64 = {
    "arch": 0xC00000B7,
    "clone": 220,
    "clone3": 435,
    "prlimit64": 261,
    "socketpair": 199,
    # socket, bind, listen, accept, connect … recvmsg; accept4, recvmmsg, sendmmsg
    "network": (198, 200, 201, 202, 203, 204, 205, 208, 209, 211, 212, 242, 243, 269),
    # kill, tkill, tgkill, execve, execveat, pidfd_send_signal
    "process": (129, 130, 131, 221, 281, 424),
    "allowed": (
        *(19, 20, 21, 22, 23, 24, 25, 29, 32, 34, 35, 36, 38, 43, 44, 46, 47, 48, 49, 50, 56, 57),
        *(59, 61, 62, 63, 64, 65, 66, 67, 68, 71, 72, 73, 78, 79, 80, 82, 83, 84, 85, 86, 93, 94),
        *(96, 98, 99, 100, 101, 113, 114, 115, 120, 121, 123, 124, 125, 126, 128, 132, 134, 135),
        *(136, 137, 139, 153, 155, 156, 158, 160, 163, 165, 166, 168, 169, 172, 173, 174, 175, 176),
        *(
            177,
            178,
            179,
            206,
            207,
            210,
            213,
            214,
            215,
            216,
            222,
            223,
            226,
            227,
            232,
            233,
            276,
            278,
            283,
            285,
            291,
        ),
        *(293, 439),
    ),
}
_TABLES = {"x86_64": _X86_64, "aarch64": _AARCH64}

_CLONE_THREAD = 0x00010000
_X32 = 0x40000000
_LOAD, _EQUAL, _AT_LEAST, _HAS_BITS, _MASK, _RETURN = 0x20, 0x15, 0x35, 0x45, 0x54, 0x06
_ALLOW, _ERRNO, _KILL = 0x7FFF0000, 0x00050000, 0x80000000
_NR, _ARCH, _ARGUMENT, _SECOND = 0, 4, 16, 24
_SOCK_STREAM = 1
_PR_SET_NO_NEW_PRIVS, _PR_SET_SECCOMP, _MODE_FILTER = 38, 22, 2


class _Program(ctypes.Structure):
    _fields_ = (("length", ctypes.c_ushort), ("filter", ctypes.c_char_p))


def is_known() -> bool:
    """Whether we know this processor's system calls."""
    return platform.machine() in _TABLES


def restrict() -> None:
    """Hold this thread, and what it starts, to the filter, for ever; raises OSError."""
    program = b"".join(_program(_TABLES[platform.machine()]))
    libc = ctypes.CDLL(None, use_errno=True)
    given = _Program(len(program) // 8, program)
    no_new = libc.prctl(_PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0)
    if no_new or libc.prctl(_PR_SET_SECCOMP, _MODE_FILTER, ctypes.byref(given), 0, 0):
        raise OSError(ctypes.get_errno(), "seccomp is not to be had")


def _program(table: dict) -> list[bytes]:  # type: ignore[type-arg]
    """Instructions, each of 8 bytes: what to do with which call, the first that fits."""
    return [
        _do(_LOAD, _ARCH),
        _do(_EQUAL, table["arch"], 1, 0),
        _do(_RETURN, _KILL),
        _do(_LOAD, _NR),
        # 32-bit pointers on x86_64: other numbers for the same calls.
        _do(_AT_LEAST, _X32, 0, 1),
        _do(_RETURN, _KILL),
        *(one for nr in table["allowed"] for one in _if(nr, _ALLOW)),
        *(one for nr in table["network"] for one in _if(nr, _ERRNO | NETWORK)),
        *(one for nr in table["process"] for one in _if(nr, _ERRNO | PROCESS)),
        # The C library then uses clone, whose flags a filter can read.
        *_if(table["clone3"], _ERRNO | errno.ENOSYS),
        *_threads_only(table["clone"]),
        *_own_limits_only(table["prlimit64"]),
        *_streams_only(table["socketpair"]),
        _do(_RETURN, _ERRNO | OTHER),
    ]


def _do(code: int, value: int, then: int = 0, otherwise: int = 0) -> bytes:
    return struct.pack("=HBBI", code, then, otherwise, value)


def _if(nr: int, action: int) -> list[bytes]:
    return [_do(_EQUAL, nr, 0, 1), _do(_RETURN, action)]


def _threads_only(clone: int) -> list[bytes]:
    return [
        _do(_EQUAL, clone, 0, 4),
        _do(_LOAD, _ARGUMENT),
        _do(_HAS_BITS, _CLONE_THREAD, 0, 1),
        _do(_RETURN, _ALLOW),
        _do(_RETURN, _ERRNO | PROCESS),
    ]


def _own_limits_only(prlimit: int) -> list[bytes]:
    """The first argument, whose limits they are, is 0 for one's own."""
    return [
        _do(_EQUAL, prlimit, 0, 4),
        _do(_LOAD, _ARGUMENT),
        _do(_EQUAL, 0, 0, 1),
        _do(_RETURN, _ALLOW),
        _do(_RETURN, _ERRNO | PROCESS),
    ]


def _streams_only(socketpair: int) -> list[bytes]:
    """asyncio wakes itself through a pair of sockets; one of streams reaches nobody else."""
    return [
        _do(_EQUAL, socketpair, 0, 5),
        _do(_LOAD, _SECOND),
        _do(_MASK, 0xF),
        _do(_EQUAL, _SOCK_STREAM, 0, 1),
        _do(_RETURN, _ALLOW),
        _do(_RETURN, _ERRNO | NETWORK),
    ]
