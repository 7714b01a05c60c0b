"""A proxy in front of a farm, made from its settings alone."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import aiohttp
import msgspec

from proxy.config import Config, parse
from proxy.protocol.champions import appoint
from proxy.protocol.exchange import Exchange
from proxy.protocol.segments import read
from tests.engines import bundles
from tests.engines.farm import Machine
from tests.serving import serving

QUICK = (
    "check_s: 0.05, answer_s: 2, retry_s: 0.2, queue_s: 5,"
    " balance: {open_s: 0.2, slow_start_s: 0.2}"
)
"""Settings of the pool under which a test need not wait."""
RENEWED = f"{QUICK}, renew_s: 0.3"
"""The same, and canaries are asked again and again."""


@dataclass
class Told:
    """What /ready says, as far as tests read it."""

    ready: bool
    replicas: dict[str, list[dict[str, object]]]
    rollouts: dict[str, str]
    candidates: dict[str, dict[str, object]]
    candidate_shadows: dict[str, dict[str, Any]] | None

    def of(self, machine: Machine) -> dict[str, object]:
        """What it says of one machine; {} while it knows none there."""
        replicas = self.replicas["local"]
        return next((replica for replica in replicas if replica["name"] == machine.name), {})


@dataclass
class Pooled:
    """A proxy, and the directory that it reads bundles from and records to."""

    url: str
    directory: Path
    session: aiohttp.ClientSession

    @property
    def adapters(self) -> Path:
        return self.directory / "adapters"

    async def ask(self, text: str, stream: bool = False, pinned: str = "") -> Reply:
        """One request of the domain `chat`; `pinned`: the adapter that shall answer."""
        message = {"role": "user", "content": text}
        body = {"model": "gpt-4o", "messages": [message], "stream": stream}
        headers = {"x-headrace-adapter": pinned} if pinned else {}
        url = f"{self.url}/chat/completions"
        async with self.session.post(url, json=body, headers=headers) as response:
            return Reply(response.status, await response.read(), stream)

    async def told(self) -> Told:
        """What /ready says now."""
        async with self.session.get(self.url.removesuffix("/v1") + "/ready") as response:
            return msgspec.json.decode(await response.read(), type=Told)

    async def until(self, holds: Callable[[Told], object], within: float = 20) -> Told:
        """What /ready says once this holds of it."""
        async with asyncio.timeout(within):
            while not holds(told := await self.told()):  # noqa: ASYNC110  # it is over HTTP
                await asyncio.sleep(0.02)
            return told

    def champion(self, id: str, answers_as: str | None = None) -> None:
        """Write a bundle and make it the champion of `chat`."""
        bundles.write(self.adapters, id, answers_as)
        appoint(self.adapters, "chat", id, "test")

    def recorded(self) -> list[Exchange]:
        """All exchanges, oldest first; whole once the proxy has stopped."""
        return sorted(read(self.directory / "record"), key=lambda exchange: exchange.started_at)


class Reply(msgspec.Struct, frozen=True):
    """What a client got: a status, and all that came after it."""

    status: int
    content: bytes
    streamed: bool

    @property
    def chunks(self) -> list[dict[str, object]]:
        """The JSON of each event, or of the one body."""
        if not self.streamed or self.status != 200:
            return [msgspec.json.decode(self.content)]
        events = self.content.decode().split("\n\n")
        texts = [event.removeprefix("data: ") for event in events if event.startswith("data: ")]
        return [msgspec.json.decode(text) for text in texts if text != "[DONE]"]

    @property
    def id(self) -> object:
        return self.chunks[0].get("id")

    @property
    def error(self) -> object:
        """The error that it ended with, as OpenAI writes one."""
        return self.chunks[-1].get("error")

    @property
    def text(self) -> str:
        """What was said."""
        place = "delta" if self.streamed else "message"
        choices = [chunk["choices"] for chunk in self.chunks if chunk.get("choices")]
        return "".join(str(one[0][place].get("content") or "") for one in choices)

    @property
    def is_whole(self) -> bool:
        """Whether it came to its end."""
        done = self.content.rstrip().endswith(b"data: [DONE]") or not self.streamed
        return self.status == 200 and done and self.error is None


@asynccontextmanager
async def pooled(
    directory: Path,
    kind: str,
    machines: Sequence[Machine],
    *,
    adapter: str | None = "chat-v1",
    pool: str = QUICK,
    more: str = "",
    policy: str = "",
) -> AsyncIterator[Pooled]:
    """A proxy whose domain `chat` is answered by one adapter on these machines.

    None: the directory of adapters is somebody else's to fill.
    """
    if adapter is not None:
        bundles.write(directory / "adapters", adapter)
        appoint(directory / "adapters", "chat", adapter, "test")
    config = configuration(directory, kind, machines, pool, more, policy)
    async with serving(config) as url, aiohttp.ClientSession() as session:
        yield Pooled(url, directory, session)


def configuration(
    directory: Path, kind: str, machines: Sequence[Machine], pool: str, more: str, policy: str = ""
) -> Config:
    urls = ", ".join(machine.url for machine in machines)
    served = ", served_model: base" if kind == "vllm" else ""
    text = f"""
version: 1
models: [gpt-4o]
backends:
  local: {{kind: {kind}, replicas: [{urls}], base_model: {bundles.MODEL}, plain: hermes{served},
    pool: {{{pool}}}{more}}}
domains:
  chat: {{plan: [local], {policy}}}
defaults: {{tools: chat, chat: chat}}
record: {{directory: record}}
"""
    return parse(text, directory, {})
