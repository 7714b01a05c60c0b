"""The attempts of one request, in order, until one has answered.

    first backend ─invalid→ the same again, told what was wrong ─fails→ next backend ─fails→ …

Text streams at once; tool calls wait until the answer is whole and has been checked. What the
client has seen decides who may still answer (commit); one deadline holds for all (deadline).
"""

from __future__ import annotations

import time
from collections.abc import (
    AsyncGenerator,
    AsyncIterator,
    Awaitable,
    Callable,
    Iterator,
    Mapping,
    Sequence,
)
from contextlib import aclosing
from typing import TypeAlias

import msgspec

from proxy.assemble import Chunks, completion
from proxy.attempt import Attempt, Item, Job, Piece, complaining, events, items, whole
from proxy.backends.base import Event, Finish, Text
from proxy.catalog import Candidate
from proxy.commit import Commitment
from proxy.errors import (
    BackendError,
    BackendUnavailable,
    InvalidAnswer,
    LowConfidence,
)
from proxy.hedge import Hedges, race
from proxy.protocol.exchange import Kind
from proxy.protocol.openai import ChatRequest
from proxy.recording import Tape
from proxy.rename import rename, rename_events, without_usage
from proxy.timer import Timer
from proxy.verify import check_late
from proxy.vote import vote

_STREAM = {"content-type": "text/event-stream; charset=utf-8"}
_JSON = {"content-type": "application/json"}


class Whole(msgspec.Struct, frozen=True):
    """An answer that is complete."""

    status: int
    headers: Mapping[str, str]
    content: bytes


class Streamed(msgspec.Struct, frozen=True):
    """An answer of which the first piece worth sending is there."""

    status: int
    headers: Mapping[str, str]
    content: AsyncIterator[bytes]


Answer: TypeAlias = Whole | Streamed
Give: TypeAlias = Callable[[Answer], Awaitable[None]]
"""Takes an answer, once there is something of it worth sending, and brings it to its end."""


async def answer(job: Job, hedges: Hedges, give: Give) -> None:
    """Give the answer of the first backend of the plan that has a good one.

    Raises the last backend's BackendError when none answers, and BadRequest when one says that none
    would; the content of a streamed answer raises what comes too late for another backend. When
    `give` ends, however it does, the backend's work is dropped.
    """
    cascade = _Cascade(job, hedges)
    if not job.request.stream:
        await give(await cascade.whole())
        return
    async with aclosing(cascade.stream()) as pieces:
        first = await anext(pieces)
        await give(Streamed(cascade.status, cascade.headers, _chained(first, pieces)))


class _Cascade:
    """The attempts at one request, and what they have in common."""

    def __init__(self, job: Job, hedges: Hedges) -> None:
        self.status = 200
        self.headers: Mapping[str, str] = _STREAM
        self._job = job
        self._hedges = hedges
        self._commitment = Commitment()
        self._chunks: Chunks | None = None
        self._failure: BackendError | None = None
        self._is_late = False
        """Whether the present attempt can only add its calls to another one's text."""
        self._waiting = list(reversed(job.plan.candidates))
        """Who has not been asked yet, the next one last."""
        self._answering: Attempt

    # ------------------------------------------------------------ the answer

    async def whole(self) -> Whole:
        """The answer in one piece; nothing is committed before it is there."""
        for attempt in self._attempts():
            try:
                with self._begun(attempt):
                    given = await self._all(attempt)
                self._tell()
                return self._joined(given)
            except (BackendError, TimeoutError) as error:
                self._keep_back(error)
        return self._joined(self._last_resort())

    async def stream(self) -> AsyncGenerator[bytes, None]:
        """The answer in pieces of whole events; the first one sets `status` and `headers`."""
        for attempt in self._attempts():
            try:
                with self._begun(attempt):
                    async with aclosing(self._given(attempt)) as given:
                        async for some in given:
                            if wire := self._sent(some):
                                yield wire
                self._check_end()
            except (BackendError, TimeoutError) as error:
                self._keep_back(error)
            else:
                return
        yield self._sent(self._last_resort())

    def _joined(self, given: Sequence[Item]) -> Whole:
        pieces = [item for item in given if isinstance(item, Piece)]
        if not pieces:
            generated = [item for item in given if not isinstance(item, Piece)]
            self._job.facts.confidence = _confidence(generated)
            whole = completion(self._job.head, generated)
            return Whole(200, _JSON, msgspec.json.encode(whole))
        reply, content = pieces[0].reply, b"".join(piece.content for piece in pieces)
        content = rename(content, self._job.request.model) if reply.renamed else content
        return Whole(reply.status, reply.headers, content)

    def _sent(self, some: Sequence[Item]) -> bytes:
        wire = b"".join([self._wire(item) for item in some])
        if wire:
            self._job.deadline.push()
        return wire

    def _wire(self, item: Item) -> bytes:
        """The item as the client gets it; b"" where that is nothing."""
        if isinstance(item, Piece):
            self.status, self.headers = item.reply.status, item.reply.headers
            self._commitment.relayed()
            wire = without_usage(item.content) if item.reply.has_own_usage else item.content
            if item.reply.renamed:
                wire = rename_events(wire, self._job.request.model)
        else:
            if self._chunks is None:
                self._chunks = Chunks(self._job.head, self._job.request.wants_usage)
            wire = self._chunks.encode(item)
            if wire:
                self._commitment.sent(item)
        return wire

    def _check_end(self) -> None:
        if self._commitment.state != "done":
            raise BackendUnavailable("the backend's answer ended before its end")

    # ------------------------------------------------------------ whose turn it is

    def _attempts(self) -> Iterator[Attempt]:
        job, asked = self._job, 0
        while self._waiting and asked <= job.route.policy.fallback.most:
            candidate = self._waiting.pop()
            asked += 1
            yield self._attempt("primary" if asked == 1 else "fallback", candidate)
            failure = self._failure
            if self._may_repair(candidate) and isinstance(failure, InvalidAnswer):
                yield self._attempt("repair", candidate, complaining(job.request, failure))

    def _may_repair(self, candidate: Candidate) -> bool:
        """Only a local backend is told what was wrong: a cloud gets what the client sent."""
        return candidate.backend.is_local and self._job.route.policy.repair.ask_again

    def _attempt(
        self, kind: Kind, candidate: Candidate, request: ChatRequest | None = None
    ) -> Attempt:
        fallback = self._job.route.policy.fallback
        return Attempt(
            kind=kind,
            candidate=candidate,
            request=request or self._job.request,
            part=fallback.share if self._waiting else 1.0,
            # Nobody left who might do better: an unsure answer is better than none.
            floor=self._floor(candidate) if self._waiting else None,
        )

    def _floor(self, candidate: Candidate) -> float | None:
        """How sure its calls must be; None where that is not asked, or was never measured."""
        policy, adapter = self._job.route.policy, candidate.adapter
        if policy.floor != "auto":
            return policy.floor
        if adapter is None or adapter.calibration is None:
            return None
        return adapter.calibration.floor(policy.target_disagreement)

    def _begun(self, attempt: Attempt) -> Timer:
        """Begin an attempt; within what is returned it has its share of the time."""
        self._answering = attempt
        self._is_late = self._commitment.state == "text"
        self._job.facts.attempts = len(self._job.recording.tapes) + 1
        self._tell()
        return self._job.deadline.share(attempt.part)

    def _keep_back(self, error: BackendError | TimeoutError) -> None:
        """Keep a failure while another attempt may follow it; else raise it."""
        late = self._job.deadline.share_over()
        failure = error if isinstance(error, BackendError) else late
        wanted = failure.trigger in self._job.route.policy.fallback.when
        if not wanted or not self._commitment.lets_follow(failure, self._is_late):
            raise failure from (None if failure is error else error)
        self._failure = failure

    def _last_resort(self) -> list[Event]:
        """An answer that was valid but not sure enough, when nobody has a better one."""
        recording = self._job.recording
        unsure = next((tape for tape in reversed(recording.tapes) if tape.is_unsure), None)
        if unsure is None:
            raise self._failure or BackendUnavailable("no backend is there to answer")
        recording.answered(unsure)
        heard = unsure.heard().events()
        return heard if self._commitment.state == "uncommitted" else _without_text(heard)

    # ------------------------------------------------------------ one attempt, or several at once

    async def _all(self, attempt: Attempt) -> Sequence[Item]:
        """What the client may get of an attempt, once it is over."""
        several = self._several(attempt)
        if several is None:
            return await whole(attempt, self._job, attempt.tape(self._job.recording))
        async with aclosing(several):
            return [item async for some in several for item in some]

    async def _given(self, attempt: Attempt) -> AsyncGenerator[Sequence[Item], None]:
        """What the client may get of an attempt, as it comes."""
        given = self._several(attempt)
        if given is None:
            given = items(attempt, self._job, attempt.tape(self._job.recording))
        told = False
        async with aclosing(given):
            async for some in given:
                if not told:
                    told = True
                    self._tell()
                yield some

    def _several(self, attempt: Attempt) -> AsyncGenerator[Sequence[Item], None] | None:
        """The items of an attempt that is more than one backend's answer; None for all others."""
        job, policy = self._job, self._job.route.policy
        if self._is_late:
            return self._late_calls(attempt)
        if policy.samples > 1 and attempt.candidate.backend.is_local and job.request.tools:
            return self._voted(attempt)
        if policy.hedge is not None and attempt.kind == "primary" and self._waiting:
            return self._hedged(attempt, self._hedges.patience(job.route.domain, policy.hedge))
        return None

    async def _late_calls(self, attempt: Attempt) -> AsyncGenerator[Sequence[Item], None]:
        """The calls of an answer whose text comes too late, as another one's is there already."""
        tape = attempt.tape(self._job.recording)
        late = _without_text(await events(attempt, self._job, tape))
        try:
            check_late(late, self._job.request)
        except InvalidAnswer as error:
            tape.correct("invalid", error.reason)
            raise
        yield late

    async def _voted(self, attempt: Attempt) -> AsyncGenerator[Sequence[Item], None]:
        """The answer that most samples agree on; each of them is recorded as an attempt."""
        policy, request = self._job.route.policy, attempt.request
        polled: list[tuple[list[Event], Tape]] = []

        async def sample(number: int) -> list[Event]:
            drawn = msgspec.structs.replace(
                request,
                temperature=request.temperature or policy.sample_temperature,
                seed=None if request.seed is None else request.seed + number,
            )
            kind: Kind = attempt.kind if number == 0 else "sample"
            one = Attempt(kind=kind, candidate=attempt.candidate, request=drawn)
            tape = one.tape(self._job.recording)
            polled.append((await events(one, self._job, tape), tape))
            return polled[-1][0]

        try:
            chosen = await vote(sample, policy.samples)
        except LowConfidence as error:
            for _, tape in polled:
                tape.correct("failed", error.reason)
            raise
        self._job.recording.answered(next(tape for said, tape in polled if said is chosen))
        yield chosen

    async def _hedged(
        self, attempt: Attempt, after_s: float | None
    ) -> AsyncGenerator[Sequence[Item], None]:
        """The answer of whoever of two backends has something to send first."""
        job, began, has_begun = self._job, time.perf_counter(), False
        tapes = [attempt.tape(job.recording)]
        hedge = self._attempt("hedge", self._waiting[-1])

        def second() -> AsyncGenerator[Sequence[Item], None]:
            self._hedges.hedged(job.route.domain)
            self._waiting.pop()
            tapes.append(hedge.tape(job.recording))
            return items(hedge, job, tapes[1])

        def decided(winner: int) -> None:
            self._answering = (attempt, hedge)[winner]
            for loser in tapes[:winner] + tapes[winner + 1 :]:
                loser.end("failed", "hedge_lost")
            job.recording.answered(tapes[winner])

        first = items(attempt, job, tapes[0])
        given = first if after_s is None else race(first, second, after_s, decided)
        async with aclosing(given):
            async for some in given:
                if not has_begun and self._answering is attempt:
                    self._hedges.began(job.route.domain, time.perf_counter() - began)
                has_begun = True
                yield some

    def _tell(self) -> None:
        """What response headers and log will say if the present attempt answers."""
        facts, candidate = self._job.facts, self._answering.candidate
        facts.attempts = max(facts.attempts, len(self._job.recording.tapes))
        spent = time.perf_counter() - facts.began
        facts.overhead_s = max(0.0, spent - self._job.recording.waited_s)
        facts.backend = candidate.backend.name
        facts.adapter = candidate.answers_as
        facts.fallback_reason = self._job.plan.passed_over
        if self._answering.kind == "hedge":
            facts.fallback_reason = "hedged"
        elif self._failure is not None:
            facts.fallback_reason = _reason(self._failure)


def _reason(error: BackendError) -> str | None:
    """Why another attempt is made, as a code of ours."""
    return error.reason if isinstance(error, InvalidAnswer | LowConfidence) else type(error).code


def _confidence(answer: Sequence[Event]) -> float | None:
    for event in answer:
        if isinstance(event, Finish) and event.confidence is not None:
            return event.confidence.call
    return None


def _without_text(answer: list[Event]) -> list[Event]:
    return [event for event in answer if not isinstance(event, Text)]


async def _chained(first: bytes, rest: AsyncIterator[bytes]) -> AsyncIterator[bytes]:
    yield first
    async for piece in rest:
        yield piece
