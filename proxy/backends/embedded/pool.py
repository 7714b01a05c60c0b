"""The pipelines in memory, within a limit: as few as can be, as each is a batch of its own.

The base and all adapters that are known make one model, in which each adapter has a lane, so that
requests for different ones share every step. Another adapter brings another model, with it and
those that are there; the former one goes when nobody uses it any more.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import AsyncGenerator, AsyncIterator, Mapping, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import NamedTuple

import msgspec
import structlog

from proxy.backends.embedded.files import ModelFiles
from proxy.backends.embedded.pipeline import (
    EngineBusy,
    EngineFailed,
    Pipeline,
    Sampling,
    Step,
)

log = structlog.get_logger()

MIB = 2**20
RESIDENT = 8.0
"""Bytes in memory for a byte of the base's file, which has 5 bits a weight: the model as it is
read, and as the processor multiplies it. Measured with SmolLM2-135M and three adapters after a
batch of 16: 1,440 MiB in all, of which at most 430 are KV cache."""
OVERHEAD = 256 * MIB
"""Bytes of a worker besides weights and KV cache, with buffers for a batch of 16."""
TOGETHER = 8
"""Adapters of one model at most. Each costs every token, its own or not: 2 ms a step."""


class Workers(msgspec.Struct, frozen=True, kw_only=True):
    """How each pipeline is opened; see Pipeline.open."""

    kv_mib: int = 512
    max_running: int = 16
    max_waiting: int = 64
    threads: int | None = None


DEFAULT_WORKERS = Workers()

BASE = "base"
"""Key of the base."""


@dataclass
class _Slot:
    """A pipeline that is loaded or being loaded, what it answers as, and how many use it."""

    opening: asyncio.Task[Pipeline]
    lanes: Mapping[str, int]
    """Lane by key."""
    users: int = 0
    used_at: float = field(default_factory=time.monotonic)

    @property
    def is_useless(self) -> bool:
        """Whether it failed to open, or broke since."""
        if not self.opening.done():
            return False
        return (
            self.opening.cancelled()
            or bool(self.opening.exception())
            or self.opening.result().is_broken
        )

    @property
    def is_open(self) -> bool:
        """Whether it answers now."""
        return self.opening.done() and not self.is_useless


class Seat(NamedTuple):
    """A pipeline, and the lane in which it answers as one adapter."""

    pipeline: Pipeline
    lane: int

    def generate(self, prompt: Sequence[int], sampling: Sampling) -> AsyncGenerator[Step, None]:
        """See Pipeline.generate."""
        return self.pipeline.generate(prompt, sampling, self.lane)


class Pipelines:
    """Hands out pipelines. Belongs to one event loop; close it with `aclose`."""

    def __init__(
        self,
        base: Path,
        cache: Path,
        memory_limit: int,
        *,
        adapters: Mapping[str, Path] | None = None,
        workers: Workers = DEFAULT_WORKERS,
        max_models: int = 4,
        patience: float = 10.0,
    ) -> None:
        """`memory_limit` in bytes, for all workers together, by estimate. `adapters` by key are in
        the first model. `max_models` models are kept on disk. `patience`: seconds to wait for
        memory while all pipelines are in use."""
        self._base = base
        self._files = ModelFiles(base, cache, max_models)
        self._limit = memory_limit
        self._workers = workers
        self._patience = patience
        self._known = dict(adapters or {})
        self._slots: list[_Slot] = []
        self._closing: set[asyncio.Task[None]] = set()
        self._changing = asyncio.Lock()
        self._released = asyncio.Event()
        self._idled = asyncio.Event()
        self._each = estimate(base, workers)

    @property
    def loaded(self) -> tuple[tuple[str, ...], ...]:
        """Keys of the adapters of each pipeline in memory, newest first."""
        return tuple(tuple(slot.lanes)[1:] for slot in self._slots)

    @asynccontextmanager
    async def use(self, adapter: Path | None, key: str) -> AsyncIterator[Seat]:
        """The pipeline of an adapter (None: of the base), kept in memory for the block's duration.

        `key` names it: equal keys, equal weights. Raises weights.WeightsError for an adapter that
        cannot be used, EngineBusy when there is no memory, EngineFailed when it does not load.
        """
        slot = self._at_hand(key) or await self._made(adapter, key)
        slot.users += 1
        try:
            yield Seat(await _opened(slot, key), slot.lanes[key])
        finally:
            slot.users -= 1
            slot.used_at = time.monotonic()
            self._retire()
            self._released.set()
            self._idled.set()

    async def spare(self, key: str) -> None:
        """Return when nobody uses any pipeline, as they share the processor, and this one is loaded
        or has room beside the others: one that is closed for it is missed by the next client."""
        while not self._is_spared(key):
            self._idled.clear()
            await self._idled.wait()

    def _is_spared(self, key: str) -> bool:
        is_idle = not any(slot.users for slot in self._slots)
        return is_idle and (self._at_hand(key) is not None or self._fits())

    async def aclose(self) -> None:
        """Close every pipeline; requests in flight fail."""
        for slot in list(self._slots):
            self._forget(slot)
        if self._closing:
            await asyncio.wait(self._closing)

    def _at_hand(self, key: str) -> _Slot | None:
        """The newest pipeline that answers as this one now, or soon."""
        able = [slot for slot in self._slots if key in slot.lanes and not slot.is_useless]
        return max(able, key=lambda slot: slot.is_open, default=None)

    async def _made(self, adapter: Path | None, key: str) -> _Slot:
        """A new slot; closes idle pipelines until there is memory for it, one caller at a time."""
        deadline = asyncio.get_running_loop().time() + self._patience
        async with self._changing:
            # Another caller may have made it while this one waited.
            while (slot := self._at_hand(key)) is None:
                if useless := [slot for slot in self._slots if slot.is_useless]:
                    await self._forgotten(useless[0])
                elif self._fits():
                    return self._begun(adapter, key)
                elif (idle := self._idle()) is not None:
                    await self._forgotten(idle)
                else:
                    await self._release(key, deadline)
            return slot

    def _begun(self, adapter: Path | None, key: str) -> _Slot:
        """A slot for this adapter and its company, the newest now."""
        adapters = self._company(key) | ({} if adapter is None else {key: adapter})
        opening = asyncio.create_task(self._open(adapters), name=f"embedded-{key}")
        lanes = {name: lane for lane, name in enumerate([BASE, *adapters])}
        self._slots.insert(0, _Slot(opening, lanes))
        return self._slots[0]

    def _company(self, key: str) -> dict[str, Path]:
        """All others that are known; of too many for one model, those that are in none."""
        room = TOGETHER if key == BASE else TOGETHER - 1
        others = {other: path for other, path in self._known.items() if other != key}
        if len(others) > room:
            others = {other: others[other] for other in others if self._at_hand(other) is None}
        return dict(list(others.items())[-room:])

    def _fits(self) -> bool:
        # One pipeline must be allowed, or a limit that is set too low would mean no answers at all.
        return not self._slots or (len(self._slots) + 1) * self._each <= self._limit

    def _idle(self) -> _Slot | None:
        """The pipeline that nobody has used for longest."""
        idle = [slot for slot in self._slots if not slot.users]
        return min(idle, key=lambda slot: slot.used_at, default=None)

    def _retire(self) -> None:
        """Close what nobody uses and a newer pipeline can do too."""
        for at, slot in reversed(list(enumerate(self._slots))):
            newer = (other for other in self._slots[:at] if other.is_open)
            if not slot.users and any(slot.lanes.keys() <= other.lanes.keys() for other in newer):
                self._forget(slot)

    async def _release(self, key: str, deadline: float) -> None:
        """Wait until somebody has done with a pipeline."""
        self._released.clear()
        try:
            async with asyncio.timeout_at(deadline):
                await self._released.wait()
        except TimeoutError:
            raise EngineBusy(f"no memory for {key}: what is loaded is in use") from None

    async def _forgotten(self, slot: _Slot) -> None:
        # `wait` and not `await`: a caller that is cancelled must not leave a worker half closed.
        await asyncio.wait([self._forget(slot)])

    def _forget(self, slot: _Slot) -> asyncio.Task[None]:
        self._slots.remove(slot)
        closing = asyncio.create_task(_close(slot), name="embedded-close")
        self._closing.add(closing)
        closing.add_done_callback(self._closing.discard)
        log.info("embedded_pipeline_closed", adapters=tuple(slot.lanes)[1:])
        return closing

    async def _open(self, adapters: Mapping[str, Path]) -> Pipeline:
        try:
            pipeline = await self._loaded(adapters)
        except Exception:
            # One of them may spoil it for all: what is open stays together, others come alone.
            open_ = {key for slot in self._slots if slot.is_open for key in slot.lanes}
            self._known = {key: path for key, path in self._known.items() if key in open_}
            raise
        self._known.update(adapters)
        return pipeline

    async def _loaded(self, adapters: Mapping[str, Path]) -> Pipeline:
        started = time.monotonic()
        model = await asyncio.to_thread(self._files.find_or_make, list(adapters.values()))
        made = time.monotonic()
        pipeline = await Pipeline.open(
            self._base,
            model,
            kv_mib=self._workers.kv_mib,
            max_running=self._workers.max_running,
            max_waiting=self._workers.max_waiting,
            threads=self._workers.threads,
        )
        ready = time.monotonic()
        log.info(
            "embedded_pipeline_opened",
            adapters=tuple(adapters),
            make_s=round(made - started, 3),
            load_s=round(ready - made, 3),
        )
        return pipeline


def estimate(base: Path, workers: Workers) -> int:
    """Bytes of memory of one worker, rather more than less."""
    return int(RESIDENT * base.stat().st_size) + OVERHEAD + workers.kv_mib * MIB


async def _opened(slot: _Slot, key: str) -> Pipeline:
    # `wait` and not `await`: whoever gives up must not cancel what others wait for too.
    await asyncio.wait([slot.opening])
    if slot.opening.cancelled():
        raise EngineFailed(f"{key} was closed while it loaded")
    return slot.opening.result()


async def _close(slot: _Slot) -> None:
    slot.opening.cancel()
    await asyncio.wait([slot.opening])
    if not slot.opening.cancelled() and slot.opening.exception() is None:
        await slot.opening.result().close()
