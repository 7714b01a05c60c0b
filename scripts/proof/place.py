"""Where the proof happens: a directory with settings, a proxy that serves it, and commands run."""

from __future__ import annotations

import asyncio
import os
import sys
import urllib.request
from collections.abc import AsyncIterator, Iterable
from contextlib import asynccontextmanager, suppress
from dataclasses import dataclass
from pathlib import Path

from scripts.demo import free_port

ROOT = Path(__file__).parents[2]
BIN = Path(sys.executable).parent
START_S, STOP_S = 180, 60
"""Seconds that the proxy may take to be ready, and to end."""

_ROUTES = """
version: 1
models: [gpt-4o, headrace]
backends:
  local: {{kind: embedded, base_model: smollm2-135m-instruct, adapters: adapters}}
  cloud: {{kind: openai, base_url: "{cloud}"}}
domains:
{domains}
defaults: {{tools: {first}, chat: {first}}}
record: {{directory: record, sync_s: 0.1}}
"""
_DOMAIN = """  {name}:
    tools: [{tools}]
    plan: [local, cloud]
    without_champion: next
    shadow: {{to: cloud, share: {mirrored}}}
"""


class ProofFailed(Exception):
    """Something did not work as it must; the message says what, and which log tells more."""


@dataclass(frozen=True)
class Place:
    """The directory, and how commands run in it."""

    directory: Path
    threads: int
    """Cores that a training may use."""

    def write(self, name: str, text: str) -> Path:
        path = self.directory / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text)
        return path

    def routes(
        self, cloud: str, domains: Iterable[tuple[str, Iterable[str]]], mirrored: float
    ) -> None:
        """Settings of a proxy whose domains begin with the cloud, and go local with a champion."""
        named = list(domains)
        told = "".join(
            _DOMAIN.format(name=name, tools=", ".join(tools), mirrored=mirrored)
            for name, tools in named
        )
        (self.directory / "adapters").mkdir(parents=True, exist_ok=True)
        self.write("routes.yaml", _ROUTES.format(cloud=cloud, domains=told, first=named[0][0]))

    @asynccontextmanager
    async def serving(self) -> AsyncIterator[str]:
        """`headrace serve` on a free port, from beginning to end one process; its base URL."""
        port = free_port()
        command = [str(BIN / "headrace"), "serve", "--config", "routes.yaml", "--port", str(port)]
        log = self.directory / "proxy.log"
        with log.open("wb") as file:
            proxy = await asyncio.create_subprocess_exec(
                *command, cwd=self.directory, stdout=file, stderr=file
            )
        try:
            await _ready(port, proxy, log)
            yield f"http://127.0.0.1:{port}/v1"
            if proxy.returncode is not None:
                raise ProofFailed(f"the proxy ended by itself; see {log}")
        finally:
            with suppress(ProcessLookupError):
                proxy.terminate()
            async with asyncio.timeout(STOP_S):
                await proxy.wait()

    async def trainer(self, *arguments: str, log: str, fails: bool = False) -> int:
        """Run `headrace-trainer` to its end; its exit code, or ProofFailed where it is not 0."""
        path = self.directory / log
        path.parent.mkdir(parents=True, exist_ok=True)
        with path.open("ab") as file:
            process = await asyncio.create_subprocess_exec(
                str(BIN / "headrace-trainer"),
                *arguments,
                cwd=self.directory,
                stdout=file,
                stderr=file,
                env=os.environ | {"OMP_NUM_THREADS": str(self.threads), "COLUMNS": "140"},
            )
        try:
            code = await process.wait()
        finally:
            with suppress(ProcessLookupError):
                process.kill()
        if code and not fails:
            raise ProofFailed(f"headrace-trainer {arguments[0]} ended with {code}; see {path}")
        return code


async def _ready(port: int, proxy: asyncio.subprocess.Process, log: Path) -> None:
    async with asyncio.timeout(START_S):
        while proxy.returncode is None:
            with suppress(OSError):
                await asyncio.to_thread(_probe, port)
                return
            await asyncio.sleep(0.2)
    raise ProofFailed(f"the proxy did not start; see {log}")


def _probe(port: int) -> None:
    urllib.request.urlopen(f"http://127.0.0.1:{port}/ready", timeout=5).close()
