"""One domain's shadows: a bounded queue, and as many workers as may be in flight.

Nobody waits for a lane and nothing that goes wrong in one gets out of it; when the proxy stops,
what is in it is dropped. What gets no shadow is counted by reason.
"""

from __future__ import annotations

import asyncio
import uuid
from collections import Counter
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from contextlib import aclosing
from dataclasses import dataclass
from typing import Literal, NamedTuple, TypeAlias, TypeVar

import msgspec
import structlog

from proxy.assemble import new_head
from proxy.attempt import Attempt, Job, items
from proxy.backends.base import Sparing
from proxy.budget import Budget, BudgetUnknown
from proxy.catalog import Candidate, Catalog, Plan
from proxy.comparison import Shadow, draw
from proxy.conversation import Conversation
from proxy.counting import Counting
from proxy.deadline import Deadline
from proxy.errors import BackendLimited, ProxyError
from proxy.logs import Facts
from proxy.protocol.adapter import Adapter
from proxy.protocol.exchange import Outcome
from proxy.protocol.openai import ChatRequest
from proxy.protocol.shadowed import Shadowed
from proxy.recorder import Recorder
from proxy.recording import MAX_ANSWER, Recording, Tape
from proxy.routing import Route

Drop: TypeAlias = Literal[
    "not_recorded",
    "asked_already",
    "unsupported",
    "outside_hours",
    "over_budget",
    "budget_unknown",
    "price_unknown",
    "limited",
    "unavailable",
    "queue_full",
    "withdrawn",
    "no_room",
    "stopped",
    "error",
]
"""Why a request of a sampled conversation has no shadow."""

_QUEUE_BYTES = 64 * 1024 * 1024
"""Bytes of requests and answers that wait in a lane. Chosen: a bound on what many large ones take.
"""
_SHORT = 32 * 1024
"""Bytes of request and answers that are read at once: some 0.1 ms. Chosen."""
_LIMITED_S = 30.0
"""Seconds in which a backend that said 429 is left alone, so that its quota is its clients'."""
_BROKEN_S = 10.0
_ENOUGH = 5
"""Failures in a row after which a backend is left alone for 10 s. Chosen: what is down costs the
clients nothing then, and a pair without an answer tells nothing new."""
_FAILED = ("failed", "upstream_aborted")
_CACHE = "cache"

T = TypeVar("T")

log = structlog.get_logger(__name__)


class Answered(msgspec.Struct, frozen=True, kw_only=True):
    """A request whose client has its answer."""

    request: ChatRequest
    body: bytes
    route: Route
    recording: Recording
    """Closed."""


class Wanted(NamedTuple):
    """Who is asked now, and about how much."""

    adapter: Adapter | None
    share: float
    """Part of the conversations, 0 to 1."""

    @property
    def id(self) -> str | None:
        return None if self.adapter is None else self.adapter.id


class _Waiting(NamedTuple):
    """A request that is to be shadowed."""

    answered: Answered
    conversation: str


class LaneStatus(msgspec.Struct, frozen=True, kw_only=True):
    """What a lane has done since the process started, for /ready and metrics."""

    to: str
    waiting: int
    in_flight: int
    sampled: int
    """Requests of conversations that are shadowed."""
    outcomes: dict[str, int]
    """Of the answers: `completed`, `invalid`, `failed`, …"""
    dropped: dict[str, int]
    """By reason; the sum of both is `sampled`, but for what is under way."""
    spent_usd: float
    """Of today's budget, as far as this process knows."""


@dataclass(frozen=True, slots=True)
class Parts:
    """What lanes have in common."""

    catalog: Catalog
    recorder: Recorder
    counting: Counting
    budget: Budget | None
    clock: Callable[[], float]
    thread: ThreadPoolExecutor

    async def apart(self, work: Callable[[], T]) -> T:
        """What blocks, or takes long, in the shadows' own thread."""
        return await asyncio.get_running_loop().run_in_executor(self.thread, work)


@dataclass(slots=True)
class _Pause:
    """Until when nobody is asked, and why."""

    until: float = 0.0
    reason: Drop = "limited"


class Lane:
    """The shadows of one domain."""

    def __init__(
        self,
        domain: str,
        settings: Shadow,
        parts: Parts,
        wanted: Callable[[], Wanted | None],
    ) -> None:
        """`wanted`: who is asked now; None: nobody."""
        self.domain = domain
        self.settings = settings
        self.seen = 0
        """Requests of the domain that were answered while there was somebody to ask."""
        self.sampled = 0
        self.in_flight = 0
        self.outcomes: Counter[str] = Counter()
        self.dropped: Counter[str] = Counter()
        self.spent_usd = 0.0
        self._parts = parts
        self._wanted = wanted
        self._backend = backend = parts.catalog.backends[settings.to]
        self._sparing = backend if isinstance(backend, Sparing) else None
        self._queue: asyncio.Queue[_Waiting] = asyncio.Queue(settings.max_waiting)
        self._bytes = 0
        self._pause = _Pause()
        self._failures = 0
        """In a row."""

    def status(self) -> LaneStatus:
        """See LaneStatus."""
        return LaneStatus(
            to=self.settings.to,
            waiting=self._queue.qsize(),
            in_flight=self.in_flight,
            sampled=self.sampled,
            outcomes=dict(self.outcomes),
            dropped=dict(self.dropped),
            spent_usd=round(self.spent_usd, 6),
        )

    # ------------------------------------------------------------ in

    def offer(self, answered: Answered) -> None:
        """Put the request into the queue, or count why not."""
        wanted = self._wanted()
        if wanted is None:
            return
        self.seen += 1
        tenant, named = answered.recording.tenant, answered.recording.conversation
        conversation = Conversation(answered.body).id(tenant, named)
        # One draw for both kinds of lane: what a cloud is asked a candidate is asked, too.
        if draw("shadow", self.domain, f"{tenant}\0{conversation}") >= wanted.share:
            return
        self.sampled += 1
        reason = self._obstacle(answered, wanted.id)
        if reason is None:
            self._queue.put_nowait(_Waiting(answered, conversation))
            self._bytes += answered.recording.size
        else:
            self.drop(reason)

    def _obstacle(self, answered: Answered, adapter: str | None) -> Drop | None:
        recording, now = answered.recording, self._parts.clock()
        if recording.level != "full" or not recording.is_kept:
            return "not_recorded"
        asked = {(tape.backend, tape.adapter) for tape in recording.tapes}
        if (self.settings.to, adapter) in asked or _CACHE in {backend for backend, _ in asked}:
            return "asked_already"
        if self._backend.lacks(answered.request) is not None:
            return "unsupported"
        if not self.settings.is_open(now):
            return "outside_hours"
        if now < self._pause.until:
            return self._pause.reason
        if self._queue.full() or self._bytes + recording.size > _QUEUE_BYTES:
            return "queue_full"
        return None

    def drop(self, reason: Drop, count: int = 1) -> None:
        """Count what gets no shadow; the first of its reason is logged."""
        if reason not in self.dropped:
            log.warning("shadow_dropped", domain=self.domain, reason=reason)
        self.dropped[reason] += count

    def fail(self) -> None:
        """Count, and log with its traceback, what nobody foresaw."""
        self.dropped["error"] += 1
        log.exception("shadow_failed", domain=self.domain)

    def stop(self) -> None:
        """The proxy stops: count what is left."""
        left = self._queue.qsize() + self.in_flight
        if left:
            self.drop("stopped", left)

    # ------------------------------------------------------------ out

    async def work(self) -> None:
        """Shadow one request after the other, until cancelled."""
        while True:
            waiting = await self._queue.get()
            self._bytes -= waiting.answered.recording.size
            self.in_flight += 1
            try:
                await self._shadow(waiting)
            except Exception:
                self.fail()
            # Not in a `finally`: what is cancelled is still in flight when `stop` counts.
            self.in_flight -= 1

    async def _shadow(self, waiting: _Waiting) -> None:
        if (reason := await self._unaffordable()) is not None:
            self.drop(reason)
            return
        wanted = self._wanted()
        if wanted is None:
            self.drop("withdrawn")
            return
        tape = await self._asked(waiting.answered, wanted.adapter)
        if tape is None:
            self.drop("no_room")
            return
        shadowed = await self._read(waiting, tape)
        self._note(shadowed.attempt.outcome)
        await self._pay(shadowed)
        self._parts.recorder.put(shadowed)

    async def _asked(self, answered: Answered, adapter: Adapter | None) -> Tape | None:
        """The other backend's answer, in whole or in part; None when there was no room for it."""
        attempt = Attempt(
            kind="shadow", candidate=Candidate(self._backend, adapter), request=answered.request
        )
        if not await self._has_room(attempt.candidate):
            return None
        tape = attempt.tape_apart()
        try:
            with Deadline(self.settings.deadline_s) as deadline:
                await _listen(attempt, _job(answered, attempt, deadline), tape)
        except BackendLimited:
            self._rest(_LIMITED_S, "limited")
        except ProxyError:
            # What went wrong is on the tape, and is what the shadow is for.
            pass
        return tape

    async def _has_room(self, candidate: Candidate) -> bool:
        if self._sparing is None:
            return True
        try:
            async with asyncio.timeout(self.settings.deadline_s):
                await self._sparing.spare(candidate.adapter)
        except TimeoutError:
            return False
        return True

    async def _read(self, waiting: _Waiting, tape: Tape) -> Shadowed:
        # Waking a thread costs several times what reading a short answer does.
        if tape.size + waiting.answered.recording.size < _SHORT:
            return self._shadowed(waiting, tape)
        return await self._parts.apart(lambda: self._shadowed(waiting, tape))

    def _shadowed(self, waiting: _Waiting, tape: Tape) -> Shadowed:
        """The record of it; reads both answers."""
        recording = waiting.answered.recording
        attempt = tape.attempt(tape.heard())
        return Shadowed(
            id=f"shadow-{uuid.uuid4().hex}",
            exchange=recording.exchange_id,
            tenant=recording.tenant,
            caller=recording.caller,
            conversation=waiting.conversation,
            domain=self.domain,
            attempt=self._parts.counting(attempt, len(waiting.answered.body)),
        )

    def _note(self, outcome: Outcome) -> None:
        """Count an answer; who fails again and again is left alone for a while."""
        self.outcomes[outcome] += 1
        self._failures = self._failures + 1 if outcome in _FAILED else 0
        if self._failures >= _ENOUGH:
            self._failures = 0
            self._rest(_BROKEN_S, "unavailable")

    # ------------------------------------------------------------ what it costs

    async def _unaffordable(self) -> Drop | None:
        """Why nothing may be spent now; None when it may."""
        limit, now = self.settings.budget_usd_per_day, self._parts.clock()
        if now < self._pause.until:
            return self._pause.reason
        if limit is None:
            return None
        budget = self._parts.budget
        if budget is None:
            return "budget_unknown"
        try:
            self.spent_usd = await self._parts.apart(lambda: budget.spent(self.domain))
        except BudgetUnknown as error:
            self._note_unknown(error)
            return "budget_unknown"
        return "over_budget" if self.spent_usd >= limit else None

    async def _pay(self, shadowed: Shadowed) -> None:
        """Add what the answer cost to today's account."""
        budget, attempt = self._parts.budget, shadowed.attempt
        if self.settings.budget_usd_per_day is None or budget is None or attempt.usage is None:
            return
        cost = attempt.cost_usd
        if cost is None:
            # A budget that cannot be counted must not stay open.
            self._rest(_until_tomorrow(self._parts.clock()), "price_unknown")
            log.error("shadow_price_unknown", domain=self.domain, model=attempt.model)
            return
        try:
            self.spent_usd = await self._parts.apart(lambda: budget.spend(self.domain, cost))
        except BudgetUnknown as error:
            self._note_unknown(error)
            self._rest(_LIMITED_S, "budget_unknown")

    def _note_unknown(self, error: BudgetUnknown) -> None:
        if "budget_unknown" not in self.dropped:
            log.error("shadow_budget_unknown", domain=self.domain, reason=str(error))

    def _rest(self, seconds: float, reason: Drop) -> None:
        self._pause = _Pause(self._parts.clock() + seconds, reason)


def _job(answered: Answered, attempt: Attempt, deadline: Deadline) -> Job:
    return Job(
        request=answered.request,
        body=answered.body,
        route=answered.route,
        plan=Plan([attempt.candidate], None),
        head=new_head(answered.request),
        recording=answered.recording,
        facts=Facts(answered.recording.id),
        deadline=deadline,
    )


async def _listen(attempt: Attempt, job: Job, tape: Tape) -> None:
    """Hear the answer to its end; of one that has none, as much as is kept."""
    async with aclosing(items(attempt, job, tape)) as given:
        async for _ in given:
            if tape.size > MAX_ANSWER:
                tape.end("failed", "answer_too_long")
                return


def _until_tomorrow(now: float) -> float:
    return 24 * 60 * 60 - now % (24 * 60 * 60)
