"""One backend's try at a request: ask it, listen, check what it generates.

An attempt gives items: a generated answer's events, or a cloud's bytes. It knows nothing of what
the client has seen, nor of other attempts: that is the cascade's.
"""

from __future__ import annotations

from collections.abc import AsyncGenerator, Sequence
from contextlib import AbstractAsyncContextManager, aclosing
from typing import NamedTuple, TypeAlias

import msgspec

from proxy.assemble import Head
from proxy.backends.base import Ask, Event, Relayed, Reply
from proxy.catalog import Candidate, Plan
from proxy.deadline import Deadline
from proxy.errors import BackendUnavailable, InvalidAnswer, LowConfidence
from proxy.logs import Facts
from proxy.protocol.exchange import Kind
from proxy.protocol.openai import ChatRequest, Message
from proxy.recording import Recording, Tape
from proxy.rename import WholeEvents
from proxy.routing import Route
from proxy.verify import Verification

MAX_WHOLE = 64 * 1024 * 1024
"""Bytes of a cloud's answer in one piece, which is held until it is whole. Chosen: far above any
text, and minutes of audio."""


class Job(msgspec.Struct, frozen=True, kw_only=True):
    """One request, and all that its attempts need."""

    request: ChatRequest
    body: bytes
    route: Route
    plan: Plan
    head: Head
    recording: Recording
    facts: Facts
    deadline: Deadline
    is_metered: bool = False
    """Whether a quota waits for what it came to."""


class Piece(NamedTuple):
    """Some of a cloud's bytes; of a stream, whole events."""

    reply: Relayed
    content: bytes


Item: TypeAlias = Event | Piece


class Attempt(msgspec.Struct, frozen=True, kw_only=True):
    """Who is asked, for what, and why."""

    kind: Kind
    candidate: Candidate
    request: ChatRequest
    part: float = 1.0
    """Part of the time left that it has until something can be sent."""
    floor: float | None = None
    """Confidence below which its calls are not given."""

    def tape(self, recording: Recording) -> Tape:
        """Where what is said from now on is kept."""
        return recording.attempt(*self._told)

    def tape_apart(self) -> Tape:
        """The same, beside all recordings."""
        return Tape(*self._told)

    @property
    def _told(self) -> tuple[Kind, str, str | None, str | None, str | None]:
        adapter, backend = self.candidate.adapter, self.candidate.backend
        format = adapter.manifest.format if adapter else None
        model = None if backend.is_local else self.request.model
        return self.kind, backend.name, self.candidate.answers_as, format, model


async def items(attempt: Attempt, job: Job, tape: Tape) -> AsyncGenerator[Sequence[Item], None]:
    """What the client may get of an attempt, as it comes; close it to drop the backend's work.

    What came together is given together.

    Raises BackendError for what another attempt may do better, BadRequest for what none would.
    """
    with tape.until(job.deadline):
        async with _asked(attempt, job) as reply:
            tape.begin(reply)
            if isinstance(reply, Relayed):
                cut = WholeEvents()
                async for piece in reply.content:
                    tape.take(piece)
                    if wire := cut.feed(piece) if job.request.stream else piece:
                        yield [Piece(reply, wire)]
                if cut.rest:
                    yield [Piece(reply, cut.rest)]
                return
            verification = _verification(attempt, job, tape)
            async for events in reply.events:
                given: list[Item] = []
                try:
                    for event in events:
                        given += verification.feed(tape.hear(event))
                except (InvalidAnswer, LowConfidence):
                    # What came before it stays right.
                    if given:
                        yield given
                    raise
                if given:
                    # Nothing is no answer yet: calls are held, and a race goes on.
                    yield given


async def whole(attempt: Attempt, job: Job, tape: Tape) -> list[Item]:
    """All that the client may get of an attempt, of which it gets nothing before its end.

    Raises as `items` does.
    """
    with tape.until(job.deadline):
        async with _asked(attempt, job) as reply:
            tape.begin(reply)
            if isinstance(reply, Relayed):
                if reply.whole is not None:
                    return [Piece(reply, tape.take(reply.whole))]
                return [Piece(reply, await _joined(reply, tape))]
            verification = _verification(attempt, job, tape)
            given: list[Item] = []
            async for events in reply.events:
                for event in events:
                    given += verification.feed(tape.hear(event))
            return given


async def _joined(reply: Relayed, tape: Tape) -> bytes:
    said = bytearray()
    async for piece in reply.content:
        said += tape.take(piece)
        if len(said) > MAX_WHOLE:
            raise BackendUnavailable(f"the backend's answer is larger than {MAX_WHOLE} bytes")
    return bytes(said)


async def events(attempt: Attempt, job: Job, tape: Tape) -> list[Event]:
    """All of an answer, a cloud's read from its bytes; raises as `items` does."""
    async with aclosing(items(attempt, job, tape)) as given:
        generated = [item async for some in given for item in some if not isinstance(item, Piece)]
    heard = generated or tape.heard().events()
    if not heard:
        raise BackendUnavailable("the backend's answer ended before its end")
    return heard


def complaining(request: ChatRequest, failure: InvalidAnswer) -> ChatRequest:
    """The request, asked again by a proxy that says what was wrong with the answer.

    Who has called wrongly must call: an excuse would pass for an answer.
    """
    called = not failure.reason.startswith("answer_")
    what, remedy = ("call", "Call again.") if called else ("answer", "Answer again.")
    told = Message(role="user", content=f"That {what} was not valid: {failure.message}. {remedy}")
    choice = request.tool_choice
    if called and choice in (None, "auto"):
        choice = "required"
    messages = [*request.messages, told]
    return msgspec.structs.replace(request, messages=messages, tool_choice=choice)


def _asked(attempt: Attempt, job: Job) -> AbstractAsyncContextManager[Reply]:
    candidate = attempt.candidate
    again = attempt.request is not job.request
    return candidate.backend.ask(
        Ask(
            attempt.request,
            job.body,
            candidate.adapter,
            job.route.policy.constrain or again,
            candidate.bare,
            tenant=job.recording.tenant,
            counted=job.is_metered or attempt.kind == "shadow",
        )
    )


def _verification(attempt: Attempt, job: Job, tape: Tape) -> Verification:
    return Verification(attempt.request, job.route.policy, tape, attempt.floor)
