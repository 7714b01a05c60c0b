"""The attempts of one request: backends in order, until one has answered.

What the client has seen decides who may still answer:

    uncommitted ──text──▶ text ──calls──▶ sealed ──end──▶ done
         └────calls, or a cloud's bytes─────▶┘

Nothing seen: the next backend may answer when one fails. Text seen, and then an invalid call: the
next one may add its calls, nothing else. Calls or a cloud's bytes seen: nobody else may add to it.
Text streams at once; tool calls wait until the answer is whole and has been checked.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncGenerator, AsyncIterator, Iterator, Mapping, Sequence
from contextlib import aclosing, asynccontextmanager, contextmanager
from dataclasses import dataclass
from typing import Literal, TypeAlias

import msgspec

from proxy.assemble import Chunks, Head, complete
from proxy.backends.base import Ask, Call, Event, Finish, Generated, Relayed, Reply, Text
from proxy.catalog import Candidate, Plan
from proxy.errors import BackendError, BackendUnavailable, InvalidAnswer
from proxy.logs import Facts
from proxy.protocol import toolcheck
from proxy.protocol.openai import ChatRequest, Usage
from proxy.recording import Recording, Tape
from proxy.rename import rename, rename_events, whole_events, without_usage
from proxy.routing import Route, Verify

State: TypeAlias = Literal["uncommitted", "text", "sealed", "done"]

_STREAM = {"content-type": "text/event-stream; charset=utf-8"}
_JSON = {"content-type": "application/json"}


@dataclass(frozen=True, slots=True)
class Whole:
    """An answer that is complete."""

    status: int
    headers: Mapping[str, str]
    content: bytes


@dataclass(frozen=True, slots=True)
class Streamed:
    """An answer of which the first piece worth sending is there."""

    status: int
    headers: Mapping[str, str]
    content: AsyncIterator[bytes]


Answer: TypeAlias = Whole | Streamed


class Deadline:
    """When an answer must have begun; pushed back as it goes on, so that only silence ends it."""

    def __init__(self, seconds: float, timer: asyncio.Timeout) -> None:
        self._seconds = seconds
        self._timer = timer
        self._loop = asyncio.get_running_loop()
        self._pushed_at = self._loop.time()

    @property
    def passed(self) -> bool:
        """Whether a cancellation that is under way is the deadline's."""
        return self._timer.expired()

    def push(self) -> None:
        """Something was sent: count from now again. Once a second is enough."""
        now = self._loop.time()
        if now - self._pushed_at > min(1.0, self._seconds / 10):
            self._pushed_at = now
            self._timer.reschedule(now + self._seconds)


@dataclass(frozen=True, slots=True, kw_only=True)
class Job:
    """One request, and all that its attempts need."""

    request: ChatRequest
    body: bytes
    route: Route
    plan: Plan
    head: Head
    recording: Recording
    facts: Facts
    deadline: Deadline


class Turns:
    """Whose turn it is, by what the client has seen. Knows no network."""

    def __init__(self) -> None:
        self.state: State = "uncommitted"

    def sent(self, event: Event) -> None:
        """The client has been sent a generated event."""
        match event:
            case Text():
                self.state = "text" if self.state == "uncommitted" else self.state
            case Call():
                self.state = "sealed"
            case Finish():
                self.state = "done"

    def may_follow(self, error: BackendError) -> bool:
        """Whether the next backend may go on after this failure."""
        if self.state == "text":
            return isinstance(error, InvalidAnswer)
        return self.state == "uncommitted"


@asynccontextmanager
async def answer(job: Job) -> AsyncIterator[Answer]:
    """The answer to a request, from the first backend of the plan that gives a good one.

    Entering waits until there is something worth sending. Raises the last backend's BackendError
    when none answers, and BadRequest when one says that none would; the content of a streamed
    answer raises what comes too late for another backend. Leaving drops the backend's work.
    """
    cascade = _Cascade(job)
    if not job.request.stream:
        yield await cascade.whole()
        return
    async with aclosing(cascade.stream()) as pieces:
        first = await anext(pieces)
        yield Streamed(cascade.status, cascade.headers, _chained(first, pieces))


async def verified(
    events: AsyncIterator[Event], request: ChatRequest, verify: Verify, tape: Tape
) -> AsyncIterator[Event]:
    """Text as it comes; calls once the answer is whole, and what `verify` says about it is done."""
    if verify == "off":
        async for event in events:
            yield event
        return
    texts: list[str] = []
    calls: list[Call] = []
    async for event in events:
        match event:
            case Text(text):
                texts.append(text)
                yield event
            case Call():
                calls.append(event)
            case Finish():
                _judge("".join(texts), calls, event, request, verify, tape)
                for call in calls:
                    yield call
                yield event


def _judge(
    text: str, calls: list[Call], finish: Finish, request: ChatRequest, verify: Verify, tape: Tape
) -> None:
    """Raise InvalidAnswer, or only record it, when the answer breaks the request's schemas."""
    failure = toolcheck.check([call.call for call in calls], request)
    if failure is None and not calls and finish.reason != "length":
        failure = toolcheck.check_answer_format(text, request)
    if failure is None:
        return
    if verify == "enforce":
        raise InvalidAnswer(failure.message, failure.reason)
    tape.end("invalid", failure.reason)


class _Cascade:
    """The attempts at one request, and what they have in common."""

    def __init__(self, job: Job) -> None:
        self.status = 200
        self.headers: Mapping[str, str] = _STREAM
        self._job = job
        self._turns = Turns()
        self._chunks = Chunks(job.head, job.request.wants_usage)
        self._failure: BackendError | None = None

    async def whole(self) -> Whole:
        """The answer in one piece; nothing is committed before it is there."""
        for candidate, tape in self._attempts():
            with self._judged(tape):
                async with candidate.backend.ask(self._ask(candidate)) as reply:
                    return await self._whole(reply, tape)
        raise self._exhausted()

    async def stream(self) -> AsyncGenerator[bytes, None]:
        """The answer in pieces of whole events; the first one sets `status` and `headers`."""
        for candidate, tape in self._attempts():
            with self._judged(tape):
                async with candidate.backend.ask(self._ask(candidate)) as reply:
                    async for piece in self._pieces(reply, tape):
                        self._job.deadline.push()
                        yield piece
                    return
        raise self._exhausted()

    def _attempts(self) -> Iterator[tuple[Candidate, Tape]]:
        facts, recording = self._job.facts, self._job.recording
        for number, candidate in enumerate(self._job.plan.candidates, start=1):
            facts.attempts = number
            facts.backend = candidate.backend.name
            facts.adapter = candidate.answers_as
            facts.fallback_reason = _reason(self._failure) or self._job.plan.passed_over
            yield (
                candidate,
                recording.attempt(
                    "primary" if number == 1 else "fallback",
                    candidate.backend.name,
                    facts.adapter,
                    candidate.adapter.manifest.format if candidate.adapter else None,
                ),
            )

    @contextmanager
    def _judged(self, tape: Tape) -> Iterator[None]:
        """Record how the attempt ends; keep a failure back while another backend may follow."""
        try:
            with tape, self._blamed(tape):
                yield
        except BackendError as error:
            if not self._turns.may_follow(error):
                raise
            self._failure = error

    @contextmanager
    def _blamed(self, tape: Tape) -> Iterator[None]:
        try:
            yield
        except (asyncio.CancelledError, GeneratorExit):
            if self._job.deadline.passed:
                tape.end("failed", "backend_timeout")
            raise

    def _ask(self, candidate: Candidate) -> Ask:
        job = self._job
        return Ask(job.request, job.body, candidate.adapter, job.route.constrain, candidate.bare)

    def _exhausted(self) -> BackendError:
        return self._failure or BackendUnavailable("no backend is there to answer")

    async def _whole(self, reply: Reply, tape: Tape) -> Whole:
        match reply:
            case Relayed():
                content = b"".join([piece async for piece in tape.content(reply)])
                model = self._job.request.model
                content = rename(content, model) if reply.renamed else content
                return Whole(reply.status, reply.headers, content)
            case Generated():
                events = self._verified(reply, tape)
                completion = await complete(self._job.head, events)
                return Whole(200, _JSON, msgspec.json.encode(completion))

    def _pieces(self, reply: Reply, tape: Tape) -> AsyncIterator[bytes]:
        if self._turns.state == "text":
            return self._late_calls(reply, tape)
        match reply:
            case Relayed():
                return self._relayed(reply, tape)
            case Generated():
                return self._generated(reply, tape)

    async def _relayed(self, reply: Relayed, tape: Tape) -> AsyncIterator[bytes]:
        """A cloud's bytes as they are, but for a model name that had been changed."""
        model = self._job.request.model
        async for piece in whole_events(tape.content(reply)):
            self.status, self.headers = reply.status, reply.headers
            self._turns.state = "sealed"
            piece = without_usage(piece) if reply.has_own_usage else piece
            yield rename_events(piece, model) if reply.renamed else piece
        if self._turns.state == "uncommitted":
            raise BackendUnavailable("the backend's answer is empty")

    async def _generated(self, reply: Generated, tape: Tape) -> AsyncIterator[bytes]:
        async for event in self._verified(reply, tape):
            wire = self._chunks.encode(event)
            if wire:
                self._turns.sent(event)
                yield wire
        if self._turns.state != "done":
            raise BackendUnavailable("the backend's answer ended before its end")

    async def _late_calls(self, reply: Reply, tape: Tape) -> AsyncIterator[bytes]:
        """The calls of an answer whose text comes too late, as another one's is there already."""
        match reply:
            case Relayed():
                late = await self._calls_of(reply, tape)
            case Generated():
                late = [e async for e in self._verified(reply, tape) if not isinstance(e, Text)]
        if not any(isinstance(event, Call) for event in late):
            raise InvalidAnswer("no backend made a valid tool call after the text", "missing_call")
        for event in late:
            self._turns.sent(event)
            yield self._chunks.encode(event)

    async def _calls_of(self, reply: Relayed, tape: Tape) -> list[Event]:
        async for _ in tape.content(reply):
            pass
        heard = tape.heard()
        if heard.judged()[0] != "completed":
            raise BackendUnavailable("the backend's answer ended before its end")
        calls: list[Event] = [Call(call) for call in heard.answer().tool_calls]
        finish = Finish(reason="tool_calls", usage=heard.usage or Usage.of(0, 0))
        return [e async for e in verified(_each([*calls, finish]), *self._terms, tape)]

    def _verified(self, reply: Generated, tape: Tape) -> AsyncIterator[Event]:
        return verified(tape.events(reply.events), *self._terms, tape)

    @property
    def _terms(self) -> tuple[ChatRequest, Verify]:
        return self._job.request, self._job.route.verify


def _reason(error: BackendError | None) -> str | None:
    """Why the next backend is asked, as a code of ours."""
    if isinstance(error, InvalidAnswer):
        return error.reason
    return None if error is None else type(error).code


async def _chained(first: bytes, rest: AsyncIterator[bytes]) -> AsyncIterator[bytes]:
    yield first
    async for piece in rest:
        yield piece


async def _each(events: Sequence[Event]) -> AsyncIterator[Event]:
    for event in events:
        yield event
