"""An engine that runs elsewhere: TGI, vLLM or SGLang, one server or many behind one name.

Three parts that know nothing of each other's work meet here:

    Pool      which server is asked, and how much it is given at once     replicas.py
    Dialect   what one server is told and how its answer is read          dialect.py, tgi/, vllm/
    Backend   prompt in, events out, in which time                        below
"""

from __future__ import annotations

import hashlib
import time
from collections.abc import AsyncGenerator, AsyncIterator, Callable, Iterator, Sequence
from contextlib import AbstractAsyncContextManager, aclosing, asynccontextmanager
from typing import NamedTuple, Protocol

from proxy.backends.base import Ask, Call, Event, Finish, Generated, lacks_locally
from proxy.backends.confidence import Trace
from proxy.backends.dialect import (
    Conversation,
    Dialect,
    End,
    Generation,
    Output,
    Outputs,
    Piece,
    Prompt,
    Sampling,
)
from proxy.backends.http import Session
from proxy.backends.pacing import Pace
from proxy.backends.prompts import rendered
from proxy.backends.reading import Reader
from proxy.backends.settings import EngineSettings
from proxy.errors import (
    BackendUnavailable,
    ContextTooLong,
)
from proxy.protocol.adapter import Adapter
from proxy.protocol.openai import ChatRequest, FinishReason, ToolCall, Usage

# ---------------------------------------------------------------- which server


class Replica(NamedTuple):
    """One server of a backend."""

    name: str
    """As logs, metrics and /ready call it: host and port."""
    url: str
    """Where its API begins, without a path and without a slash at the end."""


class Pool(Protocol):
    """The servers of one backend."""

    def lease(
        self, *, adapter: str | None, prefix: str, tokens: int
    ) -> AbstractAsyncContextManager[Replica]:
        """A server to ask, for as long as the context lasts.

        `adapter` is the id that must answer there, None the base model; `prefix` is equal for
        requests whose prompts begin alike; `tokens` is what the request may come to, prompt and
        answer. How the context is left tells how the server did: BackendUnavailable and
        BackendTimeout speak against it, all else does not (a client that leaves, a 4xx, a busy
        server, an invalid answer).

        Raises BackendOverloaded when no slot is free within the queue deadline, BackendUnavailable
        when no server is usable for this adapter.
        """

    async def spare(self, adapter: str | None) -> None:
        """Return when a place for this adapter is free that clients will not miss."""

    async def ready(self) -> bool:
        """Whether at least one server is usable."""

    async def aclose(self) -> None:
        """Give everything back."""


# ---------------------------------------------------------------- prompt in, events out

MAX_ANSWER = 4 * 1024 * 1024
"""Characters of an answer that are read: a bound on what a broken engine can cost us."""
_PREFIX = 2048
"""Characters of a prompt that decide where it goes: they hold the system text and the tools."""
_CHARACTERS_A_TOKEN = 32
"""A prompt of more is refused before it is counted: only a run of spaces packs as tightly."""


class Encoder(Protocol):
    """What turns a prompt into token ids."""

    def encode(self, prompt: str) -> list[int]: ...


class _Work(NamedTuple):
    """One request, ready to be sent."""

    start: Callable[[str], Outputs]
    """Asks the server with this URL."""
    reader: Reader
    prompt_tokens: int
    """Counted in native mode, estimated in chat mode."""
    prefix: str
    max_tokens: int


class EngineBackend:
    """An engine elsewhere, as the cascade sees it."""

    is_local = True

    def __init__(
        self,
        name: str,
        settings: EngineSettings,
        *,
        encoder: Encoder,
        dialect: Dialect,
        pool: Pool,
        session: Session,
    ) -> None:
        """Owns the pool and the session from here on."""
        self.name = name
        self._settings = settings
        self._encoder = encoder
        self._dialect = dialect
        self._pool = pool
        self._session = session

    def lacks(self, request: ChatRequest) -> str | None:
        return lacks_locally(request) or self._dialect.lacks(request, self._settings.mode)

    @asynccontextmanager
    async def ask(self, ask: Ask) -> AsyncIterator[Generated]:
        adapter = None if ask.bare or ask.adapter is None else ask.adapter.id
        work = self._work(ask, adapter)
        tokens = work.prompt_tokens + work.max_tokens
        began = time.perf_counter()
        async with self._pool.lease(adapter=adapter, prefix=work.prefix, tokens=tokens) as replica:
            queued_s = time.perf_counter() - began
            pace = Pace(self._settings)
            try:
                async with aclosing(work.start(replica.url)) as outputs:
                    yield Generated(_events(outputs, pace, work), replica.name, queued_s)
            finally:
                pace.stop()

    async def spare(self, adapter: Adapter | None) -> None:
        await self._pool.spare(None if adapter is None else adapter.id)

    async def ready(self) -> bool:
        return await self._pool.ready()

    async def aclose(self) -> None:
        await self._pool.aclose()
        await self._session.close()

    # ------------------------------------------------------------ in

    def _work(self, ask: Ask, adapter: str | None) -> _Work:
        if self._settings.mode == "chat":
            return self._conversation(ask, adapter)
        prompt = rendered(ask, self._settings.plain)
        ids = self._counted(prompt.text)
        sampling = self._sampling(ask.request, self._settings.context - len(ids))
        generation = Generation(
            adapter=adapter,
            prompt=Prompt(prompt.text, ids),
            sampling=sampling,
            constraint=prompt.constraint if self._settings.constrain else None,
            tenant=ask.tenant,
        )
        return _Work(
            lambda url: self._dialect.generate(self._session, url, generation),
            Reader(prompt.format, ask.request.stops),
            len(ids),
            _digest(prompt.text[:_PREFIX]),
            sampling.max_tokens,
        )

    def _conversation(self, ask: Ask, adapter: str | None) -> _Work:
        """Chat mode: how many tokens the engine's own template makes of it, we do not know."""
        estimate = len(ask.body) // 4
        sampling = self._sampling(ask.request, self._settings.context)
        conversation = Conversation(
            adapter=adapter,
            request=ask.request,
            sampling=sampling,
            constrain=ask.constrain and self._settings.constrain,
            tenant=ask.tenant,
        )
        head = (ask.request.messages[0].text, *(f.name for f in ask.request.offered))
        return _Work(
            lambda url: self._dialect.chat(self._session, url, conversation),
            Reader(None, ask.request.stops),
            estimate,
            _digest("\n".join(head)[:_PREFIX]),
            sampling.max_tokens,
        )

    def _counted(self, prompt: str) -> list[int]:
        context = self._settings.context
        fits = len(prompt) <= _CHARACTERS_A_TOKEN * context
        ids = self._encoder.encode(prompt) if fits else []
        if not fits or len(ids) >= context:
            raise ContextTooLong(
                f"the prompt leaves no room for an answer in {context} tokens", "messages"
            )
        return ids

    def _sampling(self, request: ChatRequest, room: int) -> Sampling:
        asked = request.max_completion_tokens or request.max_tokens or self._settings.max_tokens
        return Sampling(
            max_tokens=min(asked, room),
            # Greedy unless asked otherwise: a call has one right form, and the trainer judged that.
            temperature=request.temperature or 0.0,
            top_p=1.0 if request.top_p is None else max(request.top_p, 1e-6),
            seed=request.seed,
            frequency_penalty=request.frequency_penalty or 0.0,
            presence_penalty=request.presence_penalty or 0.0,
        )


def _digest(text: str) -> str:
    return hashlib.blake2b(text.encode(errors="replace"), digest_size=8).hexdigest()


# ---------------------------------------------------------------- out


async def _events(
    outputs: Outputs, pace: Pace, work: _Work
) -> AsyncGenerator[Sequence[Event], None]:
    tally, reader = _Tally(), work.reader
    calls: list[Call] = []
    while not reader.stopped and (heard := await pace.next(outputs)) is not None:
        if given := list(_read(heard, reader, tally, calls)):
            yield given
    if tally.end is None and not reader.stopped:
        raise BackendUnavailable("the engine's answer ended before its end")
    last = [*reader.end(), *calls]
    yield [*last, tally.finish(work, [event.call for event in last if isinstance(event, Call)])]


def _read(
    outputs: Sequence[Output], reader: Reader, tally: _Tally, calls: list[Call]
) -> Iterator[Event]:
    """The events of outputs, up to a stop string; the engine's own calls are kept for the end."""
    for output in outputs:
        match output:
            case Piece(text):
                tally.count(output)
                yield from reader.feed(text)
                if reader.stopped:
                    return
            case Call():
                calls.append(output)
            case End():
                tally.end = output


class _Tally:
    """What an answer's pieces come to."""

    def __init__(self) -> None:
        self.end: End | None = None
        self._size = 0
        self._tokens = 0
        self._rated = 0
        self._logprob = 0.0
        self._trace = Trace()

    def count(self, piece: Piece) -> None:
        self._size += len(piece.text)
        if self._size > MAX_ANSWER:
            raise BackendUnavailable(f"the answer is longer than {MAX_ANSWER} characters")
        self._tokens += piece.tokens
        if piece.logprob is not None:
            self._trace.add(piece.text, piece.logprob)
            self._rated += piece.tokens
            self._logprob += piece.logprob

    def finish(self, work: _Work, calls: Sequence[ToolCall]) -> Finish:
        """The last event. The engine's own counts where it gave them."""
        end = self.end or End(reason="stop")
        prompt = work.prompt_tokens if end.prompt_tokens is None else end.prompt_tokens
        tokens = self._tokens if end.tokens is None else end.tokens
        reason: FinishReason = "stop" if end.reason == "tool_calls" else end.reason
        return Finish(
            reason="tool_calls" if calls else reason,
            usage=Usage.of(prompt, tokens),
            mean_logprob=self._logprob / self._rated if self._rated else None,
            confidence=self._trace.confidence(calls),
        )
