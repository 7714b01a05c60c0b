"""The near end of the sandbox: starts the zygote, hands it snippets, and outlives it.

sandbox = Sandbox(Limits(seconds=5), preload=("numpy",))
sandbox.run("import numpy; numpy.zeros(3)").reason    # "ok"
"""

from __future__ import annotations

import json
import select
import struct
import subprocess
import sys
import tempfile
import weakref
from collections.abc import Sequence
from pathlib import Path
from typing import Any, Literal, TypeAlias

import msgspec

from trainer.errors import SandboxError

Reason: TypeAlias = Literal[
    "ok",
    "error",
    "time",
    "memory",
    "process",
    "network",
    "file",
    "environment",
    "system_call",
    "crash",
    "exit",
    "sandbox",
]
_GRACE_S = 20.0
"""On top of a snippet's own time, before the zygote itself counts as dead."""
_START_S = 120.0
"""For importing the packages, on a busy machine."""
_ROOT = Path(__file__).parents[2]
_START = (
    "import sys; sys.path.insert(0, sys.argv[1]); from trainer.sandbox.zygote import main; "
    "del sys.path[0]; main()"
)
_THREADS = dict.fromkeys(("OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS", "MKL_NUM_THREADS"), "1")
"""A zygote with threads could not enter namespaces; forgotten once packages are loaded."""


class Limits(msgspec.Struct, frozen=True, kw_only=True):
    """What one snippet may take."""

    seconds: float = 5.0
    """Of the clock."""
    memory: int = 512 * 2**20
    """Bytes of address space, beyond the zygote's own."""


class Run(msgspec.Struct, frozen=True, kw_only=True):
    """What became of a snippet."""

    reason: Reason
    """`ok`: it ran to its end. `error`: it failed by itself. Others: the wall that it ran into."""
    detail: str = ""
    """Type and message of the exception, or the signal."""
    output: str = ""
    """The first 4,096 characters that it printed."""
    deprecations: list[str] = []
    """What packages warned of, in lines of the snippet itself."""
    seconds: float = 0.0


class Sandbox:
    """Runs snippets one after the other, each as if it were the first.

    The zygote is started with the first snippet. Not to be shared between threads.
    """

    def __init__(self, limits: Limits, preload: Sequence[str] = ()) -> None:
        self._limits = limits
        self._preload = list(preload)
        self._process: subprocess.Popen[bytes] | None = None
        self._isolation = ""

    @property
    def isolation(self) -> str:
        """What holds the snippets, in words; raises SandboxError where nothing can."""
        self._started()
        return self._isolation

    def run(self, code: str) -> Run:
        """Run a snippet; raises SandboxError where nothing can hold it."""
        process = self._started()
        try:
            _write(process, {"code": code})
            return msgspec.convert(_read(process, self._limits.seconds + _GRACE_S), Run)
        except (OSError, ValueError) as error:
            self.close()
            return Run(reason="crash", detail=f"the sandbox died ({type(error).__name__})")

    def close(self) -> None:
        """End the zygote, if there is one."""
        if self._process is not None:
            _end(self._process)
            self._process = None

    def _started(self) -> subprocess.Popen[bytes]:
        if self._process is not None and self._process.poll() is None:
            return self._process
        scratch = tempfile.TemporaryDirectory(prefix="headrace-sandbox-")
        process = subprocess.Popen(  # noqa: S603 - our own interpreter, and our own text
            [sys.executable, "-I", "-c", _START, str(_ROOT)],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.DEVNULL,
            env=_THREADS,
            cwd="/",
        )
        self._process = process
        weakref.finalize(self, _end, process, scratch)
        self._isolation = self._greeted(process, scratch.name)
        return process

    def _greeted(self, process: subprocess.Popen[bytes], scratch: str) -> str:
        limits = msgspec.to_builtins(self._limits)
        try:
            _write(process, {**limits, "preload": self._preload, "scratch": scratch})
            greeting = _read(process, _START_S)
        except (OSError, ValueError) as error:
            self.close()
            raise SandboxError("the sandbox does not start; is this Linux?") from error
        if "refused" in greeting:
            self.close()
            raise SandboxError(
                f"code is not run here: {greeting['refused']}; switch `filters.code_runs` off, or "
                "run on Linux 5.13 or later"
            )
        if greeting["missing"]:
            self.close()
            missing = ", ".join(greeting["missing"])
            raise SandboxError(f"not installed: {missing}; leave them out of `preload`")
        return str(greeting["isolation"])


def _end(
    process: subprocess.Popen[bytes], scratch: tempfile.TemporaryDirectory[str] | None = None
) -> None:
    process.kill()
    process.wait()
    for pipe in (process.stdin, process.stdout):
        if pipe is not None:
            pipe.close()
    if scratch is not None:
        scratch.cleanup()


def _write(process: subprocess.Popen[bytes], message: dict[str, Any]) -> None:
    assert process.stdin is not None
    encoded = json.dumps(message).encode()
    process.stdin.write(struct.pack("=I", len(encoded)) + encoded)
    process.stdin.flush()


def _read(process: subprocess.Popen[bytes], seconds: float) -> dict[str, Any]:
    """The zygote's next message; raises OSError or ValueError where none comes."""
    assert process.stdout is not None
    ready, _, _ = select.select([process.stdout], [], [], seconds)
    if not ready:
        raise TimeoutError("the sandbox went silent")
    head = process.stdout.read(4)
    if len(head) < 4:
        raise OSError("the sandbox is gone")
    message: dict[str, Any] = json.loads(process.stdout.read(*struct.unpack("=I", head)))
    return message
