"""`headrace serve` in a process of its own that tells how many tasks it has.

As a module it is that process: `python -m tests.harden.watched FILE serve …` writes the number of
its event loop's tasks into FILE at each SIGUSR1.
"""

from __future__ import annotations

import asyncio
import os
import re
import signal
import subprocess
import sys
import tempfile
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass
from pathlib import Path
from types import FrameType

from proxy.__main__ import main


@dataclass
class Process:
    """The process, seen from outside."""

    process: asyncio.subprocess.Process
    base_url: str
    told: Path

    async def tasks(self) -> int:
        """Tasks of its event loop."""
        self.told.unlink(missing_ok=True)
        self.process.send_signal(signal.SIGUSR1)
        async with asyncio.timeout(20):
            while not self.told.exists():  # noqa: ASYNC110  # written by another process
                await asyncio.sleep(0.01)
        return int(self.told.read_text())

    def rss(self) -> float:
        """MiB of its memory."""
        pages = int(Path(f"/proc/{self.process.pid}/statm").read_text().split()[1])
        return pages * os.sysconf("SC_PAGE_SIZE") / 2**20

    def descriptors(self) -> int:
        return len(os.listdir(f"/proc/{self.process.pid}/fd"))


@asynccontextmanager
async def watched(routes: Path) -> AsyncIterator[Process]:
    """A proxy of these settings; it is stopped as an operator would stop it."""
    with tempfile.TemporaryDirectory() as directory:
        told = Path(directory) / "tasks"
        process = await asyncio.create_subprocess_exec(
            *(sys.executable, "-m", "tests.harden.watched", told),
            *("serve", "--config", routes, "--port", "0", "--log-level", "error"),
            stdout=subprocess.PIPE,
        )
        try:
            assert process.stdout is not None
            async with asyncio.timeout(60):
                welcome = (await process.stdout.readuntil(b"\nEND\n")).decode()
            found = re.search(r"base_url (\S+)", welcome)
            assert found is not None
            yield Process(process, found[1], told)
        finally:
            if process.returncode is None:
                process.terminate()
                await process.wait()


def _tell(file: Path, frame: FrameType | None) -> None:
    beside = file.with_suffix(".new")
    beside.write_text(str(len(asyncio.all_tasks())))
    beside.replace(file)


if __name__ == "__main__":
    place = Path(sys.argv[1])
    signal.signal(signal.SIGUSR1, lambda _, frame: _tell(place, frame))
    sys.exit(main(sys.argv[2:]))
