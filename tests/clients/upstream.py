"""Who answers the clients: a cloud and a local engine that play the scenario a prompt names.

A prompt says `[[SCENARIO TAG]]`; the tag is the request's own. What happened to it is asked of the
cloud: `GET /seen/TAG` says how often it came and how long after the first time the last was,
`GET /arrived/TAG` answers once it came, `GET /left/TAG` once its client has gone.
"""

from __future__ import annotations

import asyncio
import re
import time
from collections import defaultdict
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from typing import Any

from proxy.backends.base import Ask, Call, Event, Generated
from proxy.errors import BackendOverloaded, BackendUnavailable
from proxy.protocol.openai import FunctionCall, ToolCall
from tests import scripted
from tests.clients.cloud_bytes import (
    Flavour,
    Said,
    chunks,
    completion,
    named_event,
    response,
    response_events,
)
from tests.scripted import Cut, Received, ScriptedCloud, Step, Until
from tests.serving import Engine, finish, text

TEXT = Said(["Paris ", "is ", "sunny."])
WEATHER = '{"city":"Paris","celsius":21}'
ARGUMENTS = ('{"city":"Paris"}', '{"city":"Rome"}')
RETRY_AFTER_S = 2.5
"""What the cloud's 429 asks for: longer than any client waits on its own before its first retry."""

_PROMPT = re.compile(r"\[\[(?P<scenario>[a-z0-9-]+) (?P<tag>[^\]\s]+)\]\]")


@dataclass
class Visit:
    """What came with one tag."""

    arrived_at: list[float] = field(default_factory=list)
    """Seconds of a monotonic clock, one for each request."""
    arrived: asyncio.Event = field(default_factory=asyncio.Event)
    left: asyncio.Event = field(default_factory=asyncio.Event)
    """The client of one of them has gone before its answer was over."""

    def note(self) -> None:
        """A request has come."""
        self.arrived_at.append(time.monotonic())
        self.arrived.set()

    @property
    def told(self) -> dict[str, float]:
        waited = self.arrived_at[-1] - self.arrived_at[0] if self.arrived_at else 0.0
        return {"requests": len(self.arrived_at), "waited_s": waited}


Visits = defaultdict[str, Visit]


def visits() -> Visits:
    """A new ledger."""
    return defaultdict(Visit)


# ---------------------------------------------------------------- the cloud


class Cloud(ScriptedCloud):
    """Plays what the prompt names: OpenAI's bytes under /v1, Azure's under /azure/v1."""

    def __init__(self, ledger: Visits) -> None:
        super().__init__()
        self._ledger = ledger

    @property
    def root(self) -> str:
        """Where its paths begin."""
        return self.base_url.removesuffix("/v1")

    def script_for(self, request: Received) -> tuple[Step, ...]:
        match request.target.split("/")[1:]:
            case ["seen", tag]:
                return (scripted.answer(self._ledger[tag].told),)
            case ["arrived", tag]:
                return (Until(self._ledger[tag].arrived), scripted.answer({}))
            case ["left", tag]:
                return (Until(self._ledger[tag].left), scripted.answer({}))
        scenario, tag = _named(request.body.decode())
        visit = self._ledger[tag]
        visit.note()
        return tuple(_script(scenario, len(visit.arrived_at), request))

    def was_left(self, request: Received) -> None:
        _, tag = _named(request.body.decode())
        self._ledger[tag].left.set()


def _script(scenario: str, count: int, request: Received) -> list[Step]:
    if scenario.startswith("status-"):
        return [scripted.error(int(scenario[7:]), "It was scripted.", "scripted")]
    if scenario == "retry" and count == 1:
        waits = [f"retry-after: {RETRY_AFTER_S:g}", f"retry-after-ms: {RETRY_AFTER_S * 1000:g}"]
        return [scripted.error(429, "Slow down.", "rate_limit_exceeded", *waits)]
    body = request.json
    said = _said(scenario, _offered(body), _is_answered(body))
    if request.target.endswith("/responses"):
        return _responses(scenario, said, body)
    flavour: Flavour = "azure" if request.target.startswith("/azure/") else "openai"
    return _chat(scenario, said, body, flavour)


def _chat(scenario: str, said: Said, body: dict[str, Any], flavour: Flavour) -> list[Step]:
    if not body.get("stream"):
        whole = scripted.answer(completion(said, flavour))
        return [_silence()] if scenario == "slow" else [whole]
    options = body.get("stream_options") or {}
    events = list(chunks(said, flavour, bool(options.get("include_usage"))))
    return _streamed(scenario, events)


def _responses(scenario: str, said: Said, body: dict[str, Any]) -> list[Step]:
    if not body.get("stream"):
        return [_silence()] if scenario == "slow" else [scripted.answer(response(said))]
    events = [named_event(event) for event in response_events(said)]
    # Their end is an event of their own; there is no `[DONE]`.
    return [*_streamed(scenario, events, done=False), b"0\r\n\r\n"]


def _streamed(scenario: str, events: list[Any], done: bool = True) -> list[Step]:
    """The events; all but the last, and then silence or a broken connection, where it is asked."""
    match scenario:
        case "slow":
            return scripted.stream(*events[:-1], _silence(), done=False)
        case "cut":
            return scripted.stream(*events[:-1], Cut(), done=False)
        case _:
            return scripted.stream(*events, done=done)


def _silence() -> Until:
    return Until(asyncio.Event())


def _named(content: str) -> tuple[str, str]:
    """Scenario and tag of the first prompt in a text."""
    found = _PROMPT.search(content)
    return (found["scenario"], found["tag"]) if found else ("text", "untagged")


def _said(scenario: str, offered: list[str], is_answered: bool) -> Said:
    """What to answer: `offered` names the request's tools; `is_answered` once they have run."""
    if is_answered:
        return TEXT
    match scenario:
        case "call":
            return Said(calls=[(offered[0], ARGUMENTS[0])])
        case "calls":
            return Said(calls=[(offered[0], arguments) for arguments in ARGUMENTS])
        case "schema":
            return Said(calls=[(offered[0], WEATHER)]) if offered else Said([WEATHER])
        case _:
            return TEXT


def _offered(body: dict[str, Any]) -> list[str]:
    return [tool.get("function", tool).get("name", "") for tool in body.get("tools") or []]


def _is_answered(body: dict[str, Any]) -> bool:
    last = (body.get("messages") or body.get("input") or [None])[-1]
    return isinstance(last, dict) and (
        last.get("role") == "tool" or last.get("type") == "function_call_output"
    )


# ---------------------------------------------------------------- the local engine


class Local(Engine):
    """A local engine that plays the same scenarios as events, so that Headrace writes the bytes."""

    def __init__(self, name: str, ledger: Visits) -> None:
        super().__init__(name, [])
        self._ledger = ledger

    @asynccontextmanager
    async def ask(self, ask: Ask) -> AsyncIterator[Generated]:
        messages = ask.request.messages
        scenario, tag = _named(" ".join(message.text for message in messages))
        offered = [function.name for function in ask.request.offered]
        said = _said(scenario, offered, messages[-1].role == "tool")
        self._ledger[tag].note()
        try:
            yield Generated(_events(scenario, said))
        except (asyncio.CancelledError, GeneratorExit):
            self._ledger[tag].left.set()
            raise


async def _events(scenario: str, said: Said) -> AsyncIterator[list[Event]]:
    if scenario == "broken":
        raise RuntimeError("scripted")
    if scenario == "full":
        raise BackendOverloaded("the engine has no room")
    for event in text(*said.pieces):
        yield [event]
    if scenario == "cut":
        raise BackendUnavailable("the engine broke down")
    if scenario == "slow":
        await asyncio.Event().wait()
    for index, (name, arguments) in enumerate(said.calls):
        yield [Call(ToolCall(f"call_local{index}", FunctionCall(name, arguments)))]
    yield [finish()]
