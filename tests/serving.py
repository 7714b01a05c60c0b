"""Real servers for tests: a proxy on a real socket, and a local engine that plays events.

async with serving(config) as base_url: …            what routes.yaml says, backends included
async with serving_with(config, engine, …) as base_url: …    these backends instead
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Mapping, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from pathlib import Path

from starlette.types import ASGIApp

from proxy.app import assemble, running, shadowing
from proxy.backends.base import Ask, Backend, Call, Event, Finish, Generated, Text, lacks_locally
from proxy.catalog import Catalog, Champions
from proxy.config import Config, parse
from proxy.errors import BackendError
from proxy.protocol.openai import ChatRequest, FinishReason, FunctionCall, ToolCall, Usage
from proxy.recorder import Recorder
from proxy.server import Server, address, bind
from proxy.sinks.memory import MemorySink
from tests.scripted import Pause


@asynccontextmanager
async def serving(config: Config) -> AsyncIterator[str]:
    """The base URL of a proxy that was made from its settings alone."""
    async with running(config) as proxy, listening(proxy.app) as base_url:
        yield base_url


@asynccontextmanager
async def serving_with(
    config: Config,
    *backends: Backend,
    sink: MemorySink | None = None,
    champions: Mapping[str, Champions] | None = None,
) -> AsyncIterator[str]:
    """The base URL of a proxy with these backends in the place of those that the settings name.

    `champions`: of backends with adapters. On leaving, all that was recorded is in `sink`.
    """
    catalog = Catalog({backend.name: backend for backend in backends}, champions or {})
    recorder = Recorder(sink or MemorySink(), sync_s=0.01)
    async with asyncio.TaskGroup() as tasks:
        beside = [tasks.create_task(recorder.run())]
        shadows = shadowing(config, catalog, recorder)
        if shadows is not None:
            beside.insert(0, tasks.create_task(shadows.run()))
        proxy = assemble(config, catalog, recorder, shadows=shadows)
        async with listening(proxy.app) as base_url:
            yield base_url
        for task in beside:
            task.cancel()
            await asyncio.wait([task])
        await asyncio.gather(*(backend.aclose() for backend in backends))


@asynccontextmanager
async def listening(app: ASGIApp) -> AsyncIterator[str]:
    """The base URL of an app on a free port of this machine."""
    ready = asyncio.Event()
    server = Server(app, grace_s=1, on_ready=ready.set)
    with bind("127.0.0.1", 0) as bound:
        async with asyncio.TaskGroup() as tasks:
            tasks.create_task(server.serve(sockets=[bound]))
            await ready.wait()
            try:
                yield f"http://{address(bound)}/v1"
            finally:
                server.should_exit = True


# ---------------------------------------------------------------- settings


def settings(*backends: str, extra: str = "", verify: str = "enforce", policy: str = "") -> Config:
    """Settings with one domain, `all`, whose plan are these backends, in order.

    `policy`: more of the domain's settings, such as `samples: 3`. A backend is a name, or
    `name=base_url` for one that is made from the settings.
    """
    named = [backend.partition("=") for backend in backends]
    urls = "\n".join(
        f"  {name}: {{kind: openai, base_url: '{url or 'http://127.0.0.1:1/v1'}'}}"
        for name, _, url in named
    )
    plan = ", ".join(name for name, _, _ in named)
    text = (
        f"version: 1\nmodels: [gpt-4o, headrace]\nbackends:\n{urls}\n"
        f"domains: {{all: {{plan: [{plan}], verify: {verify}, {policy}}}}}\n"
        f"defaults: {{tools: all, chat: all}}\n{extra}\n"
    )
    return parse(text, Path("/nowhere"), {})


# ---------------------------------------------------------------- a local engine


Step = Event | list[Event] | Pause | BackendError
"""A list is what comes together."""


@dataclass
class Engine:
    """A local backend that plays events: the first request the first script, and so on, the last
    one again and again."""

    name: str
    steps: Sequence[Step]
    then: Sequence[Sequence[Step]] = ()
    """Scripts of the second request and those after it."""
    asks: list[Ask] = field(default_factory=list)
    asked: asyncio.Event = field(default_factory=asyncio.Event)
    """A request has arrived."""
    abandoned: asyncio.Event = field(default_factory=asyncio.Event)
    """A request was left before its answer was over."""
    is_ready: bool = True
    is_local: bool = True

    def lacks(self, request: ChatRequest) -> str | None:
        return lacks_locally(request)

    @asynccontextmanager
    async def ask(self, ask: Ask) -> AsyncIterator[Generated]:
        self.asks.append(ask)
        self.asked.set()
        try:
            scripts = (self.steps, *self.then)
            yield Generated(self._play(scripts[min(len(self.asks), len(scripts)) - 1]))
        except (asyncio.CancelledError, GeneratorExit):
            self.abandoned.set()
            raise

    async def _play(self, steps: Sequence[Step]) -> AsyncIterator[Sequence[Event]]:
        for step in steps:
            match step:
                case Pause(seconds):
                    await asyncio.sleep(seconds)
                case BackendError():
                    raise step
                case list():
                    yield step
                case _:
                    yield [step]

    async def ready(self) -> bool:
        return self.is_ready

    async def aclose(self) -> None:
        pass


def call(name: str, arguments: str) -> Call:
    """A tool call as an engine gives it."""
    return Call(ToolCall(f"call_{name}", FunctionCall(name, arguments)))


def finish(reason: FinishReason = "stop") -> Finish:
    """The end of an engine's answer."""
    return Finish(reason=reason, usage=Usage.of(3, 2))


def text(*pieces: str) -> list[Event]:
    """Pieces of text as an engine gives them."""
    return [Text(piece) for piece in pieces]
