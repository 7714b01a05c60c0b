"""The embedded engine as a backend: a request becomes a prompt's token ids, tokens become events.

The prompt is rendered here, with the template that is frozen in the adapter's bundle and by the
code that the trainer uses; the engine only ever sees ids.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import AsyncIterator, Iterator, Sequence
from contextlib import AsyncExitStack, aclosing, asynccontextmanager, contextmanager
from dataclasses import dataclass
from pathlib import Path

import structlog
from tokenizers.decoders import DecodeStream

from proxy.backends.base import Ask, Call, Event, Finish, Generated, lacks_locally
from proxy.backends.confidence import Trace
from proxy.backends.embedded.pipeline import (
    EngineBusy,
    EngineError,
    PromptTooLong,
    Sampling,
    Step,
)
from proxy.backends.embedded.pool import BASE, Pipelines, Seat, Workers
from proxy.backends.embedded.weights import WeightsError
from proxy.backends.prompts import rendered
from proxy.backends.reading import Reader
from proxy.backends.settings import EmbeddedSettings
from proxy.errors import (
    BackendOverloaded,
    BackendUnavailable,
    BadRequest,
    CannotStart,
    ContextTooLong,
)
from proxy.protocol.adapter import Adapter
from proxy.protocol.base_model import BaseModel, cache_directory
from proxy.protocol.formats.base import END, Format
from proxy.protocol.formats.constraint import Constraint
from proxy.protocol.openai import ChatRequest, FinishReason, ToolCall, Usage

log = structlog.get_logger(__name__)

MAX_TOKENS = 1024
"""Longest answer when the client sets no limit. Chosen: on a CPU more than that takes half a
minute, and a model this small that has not ended by then will not."""

_AGREES = 8
"""Tokens of a canary that must come out: enough to tell the adapter from its base, few enough that
8-bit weights do not change them."""

_PLAIN_TOOLS = "hermes"
"""Format in which a model without an adapter is offered tools."""


@dataclass(frozen=True, slots=True)
class _Prompt:
    """A request as the engine gets it."""

    ids: list[int]
    format: Format | None
    constraint: Constraint | None


class EmbeddedBackend:
    """A base model and its adapters on this machine's processor."""

    is_local = True

    def __init__(
        self, name: str, settings: EmbeddedSettings, model: BaseModel, adapters: Sequence[Adapter]
    ) -> None:
        """Loads nothing yet: see `start`."""
        self.name = name
        self._settings = settings
        self._model = model
        self._adapters = adapters
        self._end = model.encode(END)[0]
        self._pool = Pipelines(
            model.gguf,
            cache_directory() / "models",
            settings.memory_limit_mib * 2**20,
            adapters={adapter.id: adapter.path for adapter in adapters},
            workers=Workers(max_waiting=settings.max_waiting, threads=settings.threads),
        )

    async def start(self) -> None:
        """Load what shall be loaded, see each adapter pass its canary; or raise CannotStart."""
        if not self._settings.preload:
            return
        began = time.monotonic()
        async with asyncio.TaskGroup() as tasks:
            for adapter in (None, *self._adapters):
                tasks.create_task(self._proven(adapter))
        log.info(
            "embedded_engine_ready", backend=self.name, total_s=round(time.monotonic() - began, 2)
        )

    async def prepare(self, adapters: Sequence[Adapter]) -> None:
        """Load adapters while others serve, and see them pass; raises CannotStart."""
        for adapter in adapters:
            await self._proven(adapter)

    def lacks(self, request: ChatRequest) -> str | None:
        return lacks_locally(request)

    @asynccontextmanager
    async def ask(self, ask: Ask) -> AsyncIterator[Generated]:
        prompt = self._prompt(ask)
        sampling = self._sampling(ask.request, prompt)
        async with AsyncExitStack() as stack:
            with _translated():
                use = self._pool.use(*_weights(None if ask.bare else ask.adapter))
                seat = await stack.enter_async_context(use)
            steps = await stack.enter_async_context(aclosing(seat.generate(prompt.ids, sampling)))
            yield Generated(self._events(steps, prompt, ask.request.stops))

    async def spare(self, adapter: Adapter | None) -> None:
        await self._pool.spare(_weights(adapter)[1])

    async def ready(self) -> bool:
        return True

    async def aclose(self) -> None:
        await self._pool.aclose()

    # ------------------------------------------------------------ in

    def _prompt(self, ask: Ask) -> _Prompt:
        prompt = rendered(ask, _PLAIN_TOOLS)
        return _Prompt(self._model.encode(prompt.text), prompt.format, prompt.constraint)

    def _sampling(self, request: ChatRequest, prompt: _Prompt) -> Sampling:
        return Sampling(
            max_tokens=request.max_completion_tokens or request.max_tokens or MAX_TOKENS,
            stop_ids=(self._end,),
            # Greedy unless asked otherwise: a call has one right form, and the trainer judged that.
            temperature=request.temperature or 0.0,
            top_p=1.0 if request.top_p is None else max(request.top_p, 1e-6),
            seed=request.seed,
            frequency_penalty=request.frequency_penalty or 0.0,
            presence_penalty=request.presence_penalty or 0.0,
            logprobs=True,
            constraint=prompt.constraint,
        )

    # ------------------------------------------------------------ out

    async def _events(
        self, steps: AsyncIterator[Step], prompt: _Prompt, stops: Sequence[str]
    ) -> AsyncIterator[Sequence[Event]]:
        reader = Reader(prompt.format, stops)
        tally, trace = _Tally(len(prompt.ids), self._end), Trace()
        decoder = DecodeStream(skip_special_tokens=True)
        with _translated():
            async for step in steps:
                given: list[Event] = []
                for id, logprob in tally.count(step):
                    piece = decoder.step(self._model.tokenizer, id) or ""
                    trace.add(piece, logprob)
                    given += reader.feed(piece)
                if given:
                    yield given
                if reader.stopped:
                    break
        last = list(reader.end())
        calls = [event.call for event in last if isinstance(event, Call)]
        yield [*last, tally.finish(calls, trace, reader.stopped)]

    # ------------------------------------------------------------ proof

    async def _proven(self, adapter: Adapter | None) -> None:
        try:
            async with self._pool.use(*_weights(adapter)) as seat:
                if adapter is not None and not await self._passes(seat, adapter):
                    raise CannotStart(
                        f"{adapter.path}: the loaded adapter does not answer its canary as trained;"
                        " train it again, or name another one in champions.json"
                    )
        except (WeightsError, EngineError, OSError) as error:
            raise CannotStart(f"backend {self.name!r}: {error}") from error

    async def _passes(self, seat: Seat, adapter: Adapter) -> bool:
        canary = adapter.canary
        sampling = Sampling(max_tokens=_AGREES, stop_ids=(self._end,))
        ids: list[int] = []
        async with aclosing(seat.generate(canary.prompt, sampling)) as steps:
            async for step in steps:
                ids += step.ids
        # A short answer was recorded with the token that ends it, which the engine keeps to itself.
        expected = [id for id in canary.expected if id != self._end]
        return ids[:_AGREES] == expected[:_AGREES]


class _Tally:
    """What an answer's tokens come to."""

    def __init__(self, prompt: int, end: int) -> None:
        self._prompt = prompt
        self._end = end
        self._tokens = 0
        self._logprob = 0.0
        self._reason: FinishReason = "stop"

    def count(self, step: Step) -> Iterator[tuple[int, float]]:
        """The step's tokens that are text, all but the one that ends the turn, each with its
        log-probability."""
        self._tokens += len(step.ids)
        self._logprob += sum(step.logprobs)
        self._reason = step.finish or self._reason
        tokens = zip(step.ids, step.logprobs, strict=True)
        return ((id, logprob) for id, logprob in tokens if id != self._end)

    def finish(self, calls: Sequence[ToolCall], trace: Trace, stopped: bool) -> Finish:
        reason: FinishReason = "stop" if stopped else self._reason
        return Finish(
            reason="tool_calls" if calls else reason,
            usage=Usage.of(self._prompt, self._tokens),
            mean_logprob=self._logprob / self._tokens if self._tokens else None,
            confidence=trace.confidence(calls),
        )


def _weights(adapter: Adapter | None) -> tuple[Path | None, str]:
    return (None, BASE) if adapter is None else (adapter.path, adapter.id)


@contextmanager
def _translated() -> Iterator[None]:
    """The engine's errors as the proxy's."""
    try:
        yield
    except EngineBusy as error:
        raise BackendOverloaded(str(error)) from error
    except PromptTooLong as error:
        raise ContextTooLong(str(error), "messages") from error
    except EngineError as error:
        raise BackendUnavailable(str(error)) from error
    except WeightsError as error:
        raise BackendUnavailable("the adapter cannot be loaded") from error
    except ValueError as error:
        raise BadRequest(str(error)) from error
