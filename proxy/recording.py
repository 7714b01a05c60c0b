"""What happened to one request, collected while it happens, made into an Exchange afterwards.

    recording = Recording(…)
    with recording.attempt("primary", backend="local").until(deadline) as tape:
        async with backend.ask(ask) as reply:
            tape.begin(reply)
            async for event in reply.events:
                tape.hear(event)
    recording.close(status=200)
    recorder.put(recording)

While the client waits, pieces are put into lists, and that is all; nothing here raises. What a
cloud's bytes say is read in `exchange`, which the recorder calls later and in a thread.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import AsyncIterator, Sequence
from types import TracebackType
from typing import Self

import msgspec

from proxy import trace_context
from proxy.backends.base import Call, Event, Finish, Generated, Relayed, Reply, Text
from proxy.deadline import Deadline
from proxy.errors import BackendError, InvalidAnswer, LowConfidence, ProxyError
from proxy.hearing import Heard
from proxy.protocol.exchange import CHAT, VERSION, Attempt, Exchange, Kind, Level, Outcome
from proxy.protocol.openai import ChatRequest
from proxy.tally import Tally

MAX_ANSWER = 8 * 1024 * 1024
"""Bytes of one relayed answer that are kept. Chosen: 100 times the largest answers in use."""


_UNSURE = ("low_confidence", "no_majority")


class Recording:
    """One request and its attempts. Made when the request is matched, closed when it is over."""

    def __init__(
        self,
        *,
        id: str,
        request_id: str,
        tenant: str,
        caller: str,
        domain: str,
        route: str,
        request: ChatRequest,
        body: bytes,
        tools_fingerprint: str | None = None,
        retries: int = 0,
        drifted: Sequence[str] = (),
        endpoint: str = CHAT,
        level: Level = "full",
        conversation: str | None = None,
        assigned: str = "",
    ) -> None:
        """`level`: how much of it may be kept; `conversation`: the client's name for it."""
        self.id = id
        """The id of an answer that we make; a relayed answer brings its own."""
        self.level = level
        self.conversation = conversation
        self.is_kept = False
        """Whether the recorder has it; it takes each one once."""
        self.domain = domain
        self.route = route
        self.tapes: list[Tape] = []
        self._request_id = request_id
        self.tenant = tenant
        self.caller = caller
        self._model = request.model
        self._stream = bool(request.stream)
        self._body = body
        self._tools_fingerprint = tools_fingerprint
        self._retries = retries
        self._drifted = list(drifted)
        self._endpoint = endpoint
        self._assigned = assigned
        self._clock = _Clock()
        self._status = 500
        self._total_s = 0.0
        self._outcome: Outcome | None = None
        self._exchange: Exchange | None = None

    def attempt(
        self,
        kind: Kind,
        backend: str,
        adapter: str | None = None,
        format: str | None = None,
        model: str | None = None,
    ) -> Tape:
        """The tape of an attempt that starts now; enter it for as long as the attempt lasts."""
        tape = Tape(kind, backend, adapter, format, model)
        self.tapes.append(tape)
        return tape

    def answered(self, tape: Tape) -> None:
        """This attempt is the one whose answer the client gets, whatever ended it before."""
        if tape.is_unsure:
            tape.correct("completed")
        self.tapes.remove(tape)
        self.tapes.append(tape)

    def close(self, status: int, outcome: Outcome | None = None) -> None:
        """The request is over: the client saw this status. Without an outcome, it is the last
        attempt's."""
        self._status = status
        self._outcome = outcome
        self._total_s = self._clock.elapsed()
        self._exchange = None

    @property
    def waited_s(self) -> float:
        """Seconds so far in which a backend was waited for."""
        return sum(t.elapsed_s for t in self.tapes if t.kind not in ("hedge", "sample"))

    @property
    def size(self) -> int:
        """About how many bytes this holds in memory."""
        return len(self._body) + sum(tape.size for tape in self.tapes)

    @property
    def exchange_id(self) -> str:
        """The id of the exchange; reads the last answer, as it may bring its own."""
        return self._told_id([tape.heard() for tape in self.tapes[-1:]])

    def _told_id(self, heard: Sequence[Heard]) -> str:
        return (heard[-1].id if heard else None) or self.id

    def exchange(self) -> Exchange:
        """The exchange to be kept; reads relayed answers, so that it costs about what they do.

        Once: the record and the metrics both ask for it, each in a thread.
        """
        self._exchange = self._exchange or self._made()
        return self._exchange

    def _made(self) -> Exchange:
        heard = [tape.heard() for tape in self.tapes]
        attempts = [tape.attempt(said) for tape, said in zip(self.tapes, heard, strict=True)]
        outcome = self._outcome or (attempts[-1].outcome if attempts else "failed")
        return Exchange(
            id=self._told_id(heard),
            request_id=self._request_id,
            version=VERSION,
            started_at=self._clock.started_at,
            total_s=self._total_s,
            tenant=self.tenant,
            caller=self.caller,
            domain=self.domain,
            route=self.route,
            assigned=self._assigned,
            model=self._model,
            stream=self._stream,
            tools_fingerprint=self._tools_fingerprint,
            request=msgspec.Raw(self._body),
            attempts=attempts,
            outcome=outcome,
            status=self._status,
            retries=self._retries,
            drifted=self._drifted,
            endpoint=self._endpoint,
            level=self.level,
        )


class Tape:
    """What one attempt said. A context manager: how it is left is the attempt's outcome.

    InvalidAnswer makes it `invalid`; a BackendError `failed`, or `upstream_aborted` once something
    had come; a cancellation `client_aborted`, or `failed` where the deadline has passed. Where a
    cancellation has another cause (a hedge that lost), say so with `end` before: the first outcome
    stays.
    """

    def __init__(
        self,
        kind: Kind,
        backend: str,
        adapter: str | None,
        format: str | None,
        model: str | None = None,
    ) -> None:
        """`model`: which one a cloud is asked for."""
        self.kind = kind
        self.backend = backend
        self.adapter = adapter
        self.format = format
        self.model = model
        self.replica: str | None = None
        """Which of the backend's servers was asked; the backend says so, where it has several."""
        self.queued_s: float | None = None
        """Seconds until it was; the backend says so, where it has a queue."""
        self._clock = _Clock()
        self._events: list[Event] = []
        self._bytes: list[bytes] = []
        self.size = 0
        """Bytes or, of a generated answer, characters that went by."""
        self._content_type: str | None = None
        self._first_byte_s: float | None = None
        self._total_s: float | None = None
        self._outcome: Outcome | None = None
        self._reason: str | None = None
        self._repairs: list[str] = []
        self._tally: Tally | None = None
        """What is heard of an answer that is passed on unread."""
        self._span: trace_context.AttemptSpan | None = None
        self._deadline: Deadline | None = None

    def until(self, deadline: Deadline) -> Self:
        """This tape, for an attempt that the deadline may end."""
        self._deadline = deadline
        return self

    def __enter__(self) -> Self:
        self._span = trace_context.begin(self.kind, self.backend, self.adapter)
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        if error is None:
            self.end("completed")
        elif self._is_overdue(error):
            # The backend's doing, not the client's.
            self.end("failed", "backend_timeout")
        else:
            self.end(*_judged(error, begun=self._first_byte_s is not None))
        if self._span is not None:
            self._span.end(self._outcome or "completed", self._reason, self._tokens())

    def _is_overdue(self, error: BaseException) -> bool:
        is_cancelled = isinstance(error, asyncio.CancelledError | GeneratorExit)
        return is_cancelled and self._deadline is not None and self._deadline.passed

    def _tokens(self) -> tuple[int, int] | None:
        """Tokens of prompt and answer, of what was generated; a cloud's are read later."""
        last = self._events[-1] if self._events else None
        if not isinstance(last, Finish) or last.usage is None:
            return None
        return last.usage.prompt_tokens, last.usage.completion_tokens

    @property
    def elapsed_s(self) -> float:
        """Seconds since the start, up to the end or until now."""
        return self._clock.elapsed() if self._total_s is None else self._total_s

    def end(self, outcome: Outcome, reason: str | None = None) -> None:
        """The attempt is over; later calls change nothing. `reason` is a code."""
        if self._outcome is None:
            self._outcome, self._reason = outcome, reason
            self._total_s = self._clock.elapsed()

    def correct(self, outcome: Outcome, reason: str | None = None) -> None:
        """What was found out about a whole answer after the attempt was over."""
        self._outcome, self._reason = outcome, reason

    @property
    def is_unsure(self) -> bool:
        """Whether its answer is whole and valid, and was kept back for want of confidence."""
        return self._reason in _UNSURE

    def begin(self, reply: Reply) -> None:
        """The backend answers."""
        match reply:
            case Relayed():
                self._content_type = reply.headers.get("content-type", "")
            case Generated():
                self.replica, self.queued_s = reply.replica, reply.queued_s

    def take(self, chunk: bytes) -> bytes:
        """Keep, and give back, a piece of a relayed answer; of a giant, only the first MAX_ANSWER
        bytes are kept."""
        self._mark_first_byte()
        self.size += len(chunk)
        if self.size <= MAX_ANSWER:
            self._bytes.append(chunk)
        return chunk

    def hear(self, event: Event) -> Event:
        """Keep, and give back, an event of a generated answer."""
        self._mark_first_byte()
        self._events.append(event)
        match event:
            case Text(text):
                self.size += len(text)
            case Call(call):
                self.size += len(call.function.arguments)
            case Finish():
                pass
        return event

    def mend(self, calls: Sequence[Call], codes: Sequence[str]) -> None:
        """The client gets these calls in the place of those that were heard."""
        self._repairs = list(codes)
        self._events = [event for event in self._events if not isinstance(event, Call)]
        self._events[-1:-1] = calls

    async def unheard(self, reply: Relayed) -> AsyncIterator[bytes]:
        """The reply's bytes, timed and not kept: of what they say, only what they used is for the
        record."""
        tally = self._tally = Tally(reply.headers.get("content-type", ""))
        async for chunk in reply.content:
            self._mark_first_byte()
            yield tally.take(chunk)

    def heard(self) -> Heard:
        """What was said so far, be it in events or in bytes."""
        heard = Heard()
        if self._content_type is None:
            heard.add_events(self._events)
        elif self._content_type.startswith("text/event-stream"):
            heard.add_stream(self._bytes)
        else:
            heard.add_json(b"".join(self._bytes))
        heard.is_cut = self._content_type is not None and self.size > MAX_ANSWER
        return heard

    def attempt(self, heard: Heard) -> Attempt:
        """The attempt to be kept. `completed` only when what was heard is a whole answer."""
        outcome, reason = self._outcome or "failed", self._reason
        sure = heard.confidence
        used, model = (None, None) if self._tally is None else self._tally.read()
        if outcome == "completed" and self._tally is None:
            outcome, reason = heard.judged()
        return Attempt(
            kind=self.kind,
            backend=self.backend,
            adapter=self.adapter,
            format=self.format,
            replica=self.replica,
            model=heard.model or model or self.model,
            outcome=outcome,
            reason=reason,
            answer=heard.answer(),
            usage=heard.usage or (None if used is None else used.plain),
            cached_tokens=heard.cached_tokens or (used.cached if used else 0),
            mean_logprob=heard.mean_logprob,
            name_probability=sure.name if sure else None,
            arguments_probability=sure.arguments if sure else None,
            repairs=self._repairs,
            started_at=self._clock.started_at,
            queued_s=self.queued_s,
            first_byte_s=self._first_byte_s,
            total_s=self.elapsed_s,
        )

    def _mark_first_byte(self) -> None:
        if self._first_byte_s is None:
            self._first_byte_s = self._clock.elapsed()


def _judged(error: BaseException, begun: bool) -> tuple[Outcome, str]:
    """The outcome of an attempt that ended by this error, and the reason's code."""
    match error:
        case InvalidAnswer():
            return "invalid", error.reason
        case LowConfidence():
            return "failed", error.reason
        case BackendError():
            return "upstream_aborted" if begun else "failed", _code(error)
        case ProxyError():
            return "failed", _code(error)
        case asyncio.CancelledError() | GeneratorExit():
            return "client_aborted", "cancelled"
        case _:
            return "failed", "internal_error"


def _code(error: ProxyError) -> str:
    # The class's code, not the object's: BackendRefused carries one that came from the network.
    return type(error).code or "bad_request"


class _Clock:
    """Seconds since it was made, whatever happens to the wall clock."""

    def __init__(self) -> None:
        self.started_at = time.time()
        self._started = time.perf_counter()

    def elapsed(self) -> float:
        return time.perf_counter() - self._started
