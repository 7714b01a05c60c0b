"""The process that snippets are forked from: warm, with packages loaded, and held.

Each snippet runs in a child of its own that

    reads no file but Python's and its packages', writes none but in its scratch   landlock
    makes no socket, no process and no unusual system call                         seccomp
    sees no network, a read-only file system, a scratch of some MiB                namespaces
    has so many seconds, MiB, open files                                           rlimits, a timer
    has no environment, no input, and no privileges                                capset

Namespaces are used where they are to be had. Without landlock or seccomp nothing runs at all.
Only the standard library is imported here, and `trainer/__init__`, which is empty.
"""

from __future__ import annotations

import contextlib
import errno
import importlib
import io
import json
import os
import resource
import select
import signal
import socket
import struct
import sys
import sysconfig
import time
import traceback
import warnings
from typing import Any, NoReturn

from trainer.sandbox import landlock, namespaces, seccomp

SCRATCH = 16 * 2**20
"""Bytes. Chosen: examples write a small file, no data set."""
_FILE = 2**20
_OPEN_FILES = 64
_OUTPUT = 4096
"""Characters of output that are told."""
_VERDICT = 64 * 1024
"""Bytes of a verdict that are read: the child that writes it is not to be trusted."""
_DEVICES = ("/dev/null", "/dev/zero", "/dev/urandom", "/dev/random")
_SYSTEM = ("/lib", "/lib64", "/usr/lib", "/usr/lib64", "/usr/share/zoneinfo", "/etc/localtime")
_NAME = "<answer>"


def main() -> None:
    """Serve snippets from stdin until it ends."""
    wire = _Wire()
    settings = wire.read()
    if settings is None:
        return
    try:
        isolation, has_scratch = _isolate()
    except OSError as error:
        wire.write({"refused": str(error)})
        return
    missing = _preload(settings["preload"])
    os.environ.clear()
    scratch = settings["scratch"] if has_scratch else ""
    wire.write({"isolation": isolation, "missing": missing})
    while (request := wire.read()) is not None:
        wire.write(_run(request["code"], settings["seconds"], settings["memory"], scratch))


class _Wire:
    """Messages in JSON, each after its length in 4 bytes, on what was stdin and stdout."""

    def __init__(self) -> None:
        self._input, self._output = os.fdopen(os.dup(0), "rb"), os.fdopen(os.dup(1), "wb")
        null = os.open(os.devnull, os.O_RDWR)
        for standard in (0, 1, 2):
            os.dup2(null, standard)

    def read(self) -> dict[str, Any] | None:
        head = self._input.read(4)
        if len(head) < 4:
            return None
        message: dict[str, Any] = json.loads(self._input.read(*struct.unpack("=I", head)))
        return message

    def write(self, message: dict[str, Any]) -> None:
        encoded = json.dumps(message).encode()
        self._output.write(struct.pack("=I", len(encoded)) + encoded)
        self._output.flush()


def _isolate() -> tuple[str, bool]:
    """What holds the snippets, in words, and whether they get a scratch; OSError: nothing can."""
    if not landlock.version():
        raise OSError("the kernel has no landlock")
    if not seccomp.is_known():
        raise OSError("the system calls of this processor are not known")
    held = f"landlock {landlock.version()}, seccomp"
    try:
        namespaces.enter()
    except OSError as error:
        return f"{held}; no namespaces, hence no scratch ({error})", False
    return f"{held}, namespaces (user, network, mounts, IPC)", True


def _preload(packages: list[str]) -> list[str]:
    """Import the packages; returns those that are not there."""
    missing = []
    for package in packages:
        try:
            importlib.import_module(package)
        except ImportError:
            missing.append(package)
    return missing


# ---------------------------------------------------------------- one snippet


def _run(code: str, seconds: float, memory: int, scratch: str) -> dict[str, Any]:
    ours, theirs = os.pipe()
    began = time.monotonic()
    child = os.fork()
    if child == 0:
        _child(code, seconds, memory, scratch, theirs)
    os.close(theirs)
    said = _until(ours, began + seconds)
    if said is None:
        os.kill(child, signal.SIGKILL)
    os.close(ours)
    status = os.waitpid(child, 0)[1]
    verdict = _verdict(said, os.waitstatus_to_exitcode(status))
    return {**verdict, "seconds": time.monotonic() - began}


def _until(pipe: int, deadline: float) -> bytes | None:
    """What the child says before it ends; None when it is not done in time."""
    said = b""
    while len(said) < _VERDICT:
        ready, _, _ = select.select([pipe], [], [], max(0.0, deadline - time.monotonic()))
        if not ready:
            return None
        chunk = os.read(pipe, _VERDICT)
        if not chunk:
            break
        said += chunk
    return said


def _verdict(said: bytes | None, exit_code: int) -> dict[str, Any]:
    if said is None or exit_code == -signal.SIGXCPU:
        return _told("time", "did not end in time")
    if exit_code < 0:
        return _told("crash", signal.Signals(-exit_code).name)
    try:
        verdict = json.loads(said)
        return {
            "reason": str(verdict["reason"])[:40],
            "detail": str(verdict["detail"])[:200],
            "output": str(verdict["output"])[:_OUTPUT],
            "deprecations": [str(one)[:200] for one in verdict["deprecations"]][:10],
        }
    except (ValueError, KeyError, TypeError):
        return _told("exit", f"ended with {exit_code} and said nothing")


def _told(reason: str, detail: str) -> dict[str, Any]:
    return {"reason": reason, "detail": detail, "output": "", "deprecations": []}


def _child(code: str, seconds: float, memory: int, scratch: str, pipe: int) -> NoReturn:
    try:
        pipe = _confine(seconds, memory, scratch, pipe)
        verdict = _executed(code)
    except BaseException as error:
        verdict = _told("sandbox", f"{type(error).__name__}: {error}")
    with contextlib.suppress(OSError):
        os.write(pipe, json.dumps(verdict).encode())
    os._exit(0)


def _confine(seconds: float, memory: int, scratch: str, pipe: int) -> int:
    """Hold this process; returns where the pipe is then."""
    os.dup2(pipe, 3)
    os.closerange(4, resource.getrlimit(resource.RLIMIT_NOFILE)[0])
    for number in (signal.SIGPIPE, signal.SIGXFSZ):
        signal.signal(number, signal.SIG_IGN)
    if scratch:
        namespaces.scratch(scratch, SCRATCH)
        namespaces.drop_powers()
    _limit(seconds, memory)
    landlock.restrict([*_readable(), *_DEVICES], [scratch] if scratch else ["/dev/null"])
    seccomp.restrict()
    return 3


def _limit(seconds: float, memory: int) -> None:
    with open("/proc/self/statm") as sizes:
        own = int(sizes.read().split()[0]) * resource.getpagesize()
    cpu = int(seconds) + 1
    for what, most in (
        (resource.RLIMIT_AS, own + memory),
        (resource.RLIMIT_CPU, cpu),
        (resource.RLIMIT_FSIZE, _FILE),
        (resource.RLIMIT_NOFILE, _OPEN_FILES),
        (resource.RLIMIT_CORE, 0),
    ):
        resource.setrlimit(what, (most, most))


def _readable() -> list[str]:
    paths = sysconfig.get_paths()
    python = [paths[name] for name in ("stdlib", "platstdlib", "purelib", "platlib")]
    return [*python, f"{sys.base_prefix}/lib", *_SYSTEM]


def _executed(code: str) -> dict[str, Any]:
    """Run it; the verdict has the last line of a traceback, never the traceback."""
    output = _Output()
    reason, detail = "ok", ""
    with warnings.catch_warnings(record=True) as warned:
        warnings.simplefilter("always")
        with contextlib.redirect_stdout(output), contextlib.redirect_stderr(output):
            try:
                # What this whole process is for.
                exec(compile(code, _NAME, "exec"), {"__name__": "__main__"})  # noqa: S102
            except SystemExit as error:
                reason, detail = ("ok", "") if not error.code else ("error", "SystemExit")
            except BaseException as error:
                reason, detail = _why(error), f"{type(error).__name__}: {error}"[:200]
    return {
        "reason": reason,
        "detail": detail,
        "output": output.getvalue()[:_OUTPUT],
        "deprecations": [f"{w.category.__name__}: {w.message}" for w in warned if _is_old(w)],
    }


def _is_old(warning: warnings.WarningMessage) -> bool:
    kinds = (DeprecationWarning, PendingDeprecationWarning, FutureWarning)
    return warning.filename == _NAME and issubclass(warning.category, kinds)


class _Output(io.StringIO):
    """Keeps the first characters, and takes the others to nowhere."""

    def write(self, text: str) -> int:
        room = _OUTPUT - self.tell()
        if room > 0:
            super().write(text[:room])
        return len(text)


def _why(error: BaseException) -> str:
    """Which of the walls the code ran into: `network`, `process`, `file` …; or `error`."""
    seen: BaseException | None = error
    for _ in range(10):
        if seen is None:
            break
        if (wall := _wall(seen)) is not None:
            return wall
        seen = seen.__cause__ or seen.__context__
    return "error"


def _wall(error: BaseException) -> str | None:
    if isinstance(error, MemoryError):
        return "memory"
    if isinstance(error, socket.gaierror):
        return "network"
    if isinstance(error, KeyError) and _raised_in(error) == os.__file__:
        return "environment"
    if not isinstance(error, OSError):
        return "process" if "can't start new thread" in str(error) else None
    return {
        seccomp.NETWORK: "network",
        seccomp.PROCESS: "process",
        seccomp.OTHER: "system_call",
        errno.EACCES: "file",
        errno.EROFS: "file",
        errno.EFBIG: "file",
        errno.ENOSPC: "file",
        errno.ENOMEM: "memory",
    }.get(error.errno or 0)


def _raised_in(error: BaseException) -> str:
    frames = traceback.extract_tb(error.__traceback__)
    # `os` is frozen into some Pythons: its frames then have a name instead of a path.
    name = frames[-1].filename if frames else ""
    return os.__file__ if name == "<frozen os>" else name
