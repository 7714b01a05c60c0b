"""An engine that runs elsewhere: TGI, vLLM or SGLang, one server or many behind one name.

Three parts that know nothing of each other's work meet here:

    Pool      which server is asked, and how much it is given at once     replicas.py
    Dialect   what one server is told and how its answer is read          tgi/, vllm.py
    Backend   prompt in, events out, in which time                        below

Native mode sends a prompt that we rendered; chat mode sends the conversation and leaves the
rendering, and the reading of tool calls, to the engine.
"""

from __future__ import annotations

import hashlib
import time
from collections.abc import AsyncGenerator, AsyncIterator, Callable, Iterator, Sequence
from contextlib import AbstractAsyncContextManager, aclosing, asynccontextmanager
from typing import Literal, NamedTuple, Protocol, TypeAlias

import msgspec

from proxy.backends.base import Ask, Call, Event, Finish, Generated, lacks_locally
from proxy.backends.confidence import Trace
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
from proxy.protocol.formats.constraint import Constraint
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


# ---------------------------------------------------------------- what a server is told


class Prompt(NamedTuple):
    """A rendered prompt, as text and as the same text's token ids."""

    text: str
    ids: list[int]


class Sampling(msgspec.Struct, frozen=True, kw_only=True):
    """How an answer is drawn."""

    max_tokens: int
    temperature: float = 0.0
    """0: the likeliest token each time."""
    top_p: float = 1.0
    seed: int | None = None
    frequency_penalty: float = 0.0
    presence_penalty: float = 0.0


class Generation(msgspec.Struct, frozen=True, kw_only=True):
    """What native mode asks for."""

    adapter: str | None
    """Id of the adapter; None asks the base model."""
    prompt: Prompt
    sampling: Sampling
    constraint: Constraint | None = None
    """What the answer may look like, for engines that can hold it to that."""
    tenant: str = ""
    """Whose prompt it is."""


class Conversation(msgspec.Struct, frozen=True, kw_only=True):
    """What chat mode asks for."""

    adapter: str | None
    request: ChatRequest
    sampling: Sampling
    constrain: bool = False
    tenant: str = ""


# ---------------------------------------------------------------- what a server says


class Piece(msgspec.Struct, frozen=True):
    """Text of the answer; special tokens are left out, but counted."""

    text: str
    tokens: int = 1
    logprob: float | None = None
    """Natural-log probability, summed over the tokens."""


class End(msgspec.Struct, frozen=True, kw_only=True):
    """The answer is over. Always the last output."""

    reason: FinishReason
    prompt_tokens: int | None = None
    """As the engine counts; None where it does not say."""
    tokens: int | None = None


Output = Piece | Call | End
Outputs: TypeAlias = AsyncGenerator[list[Output], None]
"""What came together, together."""


class Dialect(Protocol):
    """One kind of engine, over HTTP. Stateless: the server is named with each call.

    Everything raised is of proxy.errors: AdapterMissing where the server does not have the adapter
    (it has been restarted), another BackendError where another server or backend may do better,
    BadRequest where none would. Leaving a generator cuts the connection, at which every
    engine here stops its work on the request.
    """

    loads_at_run_time: bool
    """Whether `load` and `unload` work; if not, new adapters take a restart of the server."""

    def lacks(self, request: ChatRequest, mode: Literal["native", "chat"]) -> str | None:
        """The first field of the request that this engine must not be given; None for none."""

    def generate(self, session: Session, url: str, generation: Generation) -> Outputs:
        """The answer to a rendered prompt. Stop strings are ours to apply, not the engine's."""

    def chat(self, session: Session, url: str, conversation: Conversation) -> Outputs:
        """The answer to a conversation, its tool calls parsed."""

    async def healthy(self, session: Session, url: str) -> bool:
        """Whether the server says that it is well; False too when it says nothing."""

    async def adapters(self, session: Session, url: str) -> set[str] | None:
        """Ids of the adapters that are loaded; None when the engine does not tell (TGI)."""

    async def load(self, session: Session, url: str, adapter: Adapter) -> None:
        """Load an adapter; one that is loaded already is left as it is."""

    async def unload(self, session: Session, url: str, adapter: str) -> None:
        """Unload an adapter; one that is not there is no error."""

    async def greedy(
        self,
        session: Session,
        url: str,
        adapter: str | None,
        prompt: Sequence[int],
        most: int,
    ) -> list[int] | str:
        """The `most` likeliest next tokens, to be held against a canary: ids, or their text where
        the engine gives no ids."""


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
