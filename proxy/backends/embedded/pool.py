"""The pipelines in memory: one for the base and one for each adapter in use, within a limit.

An adapter's weights are merged once into a file of the cache, named after what went into it; its
pipeline is opened when first asked for, and closed again when another one needs the memory.
"""

from __future__ import annotations

import asyncio
import fcntl
import functools
import hashlib
import os
import subprocess
import sys
import time
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager, contextmanager, suppress
from dataclasses import dataclass, field
from pathlib import Path

import msgspec
import structlog

import proxy
from proxy.backends.embedded import weights
from proxy.backends.embedded.pipeline import EngineBusy, EngineFailed, Pipeline

log = structlog.get_logger()

MERGE_VERSION = 1
"""Raise it when weights.py writes other bytes: cached files of other versions are not used."""

MIB = 2**20
RESIDENT = 2.0
"""Bytes in memory for a byte of the model's file. Measured with SmolLM2-135M: 350 MiB after loading
138 MiB, of which 66 are Python and OpenVINO."""
MERGED = 1.7
"""Bytes of the merged file for a byte of the base, at most: 8.5 bits a weight for 5."""
OVERHEAD = 256 * MIB
"""Bytes of a worker besides weights and KV cache, with buffers for a batch of 16. Measured: 260,
where `MERGED` already takes 40 too many."""


class Merged(msgspec.Struct, frozen=True):
    """What stands beside a merged file: how to know that it is whole."""

    size: int
    sha256: str


class Workers(msgspec.Struct, frozen=True, kw_only=True):
    """How each pipeline is opened; see Pipeline.open."""

    kv_mib: int = 256
    max_running: int = 16
    max_waiting: int = 64
    threads: int | None = None


DEFAULT_WORKERS = Workers()


@dataclass
class _Slot:
    """A pipeline that is loaded or being loaded, and who uses it."""

    opening: asyncio.Task[Pipeline]
    bytes: int
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


class Pipelines:
    """Hands out pipelines. Belongs to one event loop; close it with `aclose`."""

    def __init__(
        self,
        base: Path,
        cache: Path,
        memory_limit: int,
        *,
        workers: Workers = DEFAULT_WORKERS,
        max_files: int = 16,
        patience: float = 10.0,
    ) -> None:
        """`memory_limit` in bytes, for all workers together, by estimate. `max_files` merged files
        are kept on disk. `patience`: seconds to wait for memory while all pipelines are in use."""
        self._files = MergedFiles(base, cache, max_files)
        self._limit = memory_limit
        self._workers = workers
        self._patience = patience
        self._slots: dict[str, _Slot] = {}
        self._closing: set[asyncio.Task[None]] = set()
        self._changing = asyncio.Lock()
        self._released = asyncio.Event()
        self._idled = asyncio.Event()
        self._each = estimate(base, workers)

    @property
    def loaded(self) -> tuple[str, ...]:
        """Keys of the pipelines in memory, least recently used first."""
        return tuple(sorted(self._slots, key=lambda key: self._slots[key].used_at))

    @asynccontextmanager
    async def use(self, adapter: Path | None, key: str) -> AsyncIterator[Pipeline]:
        """The pipeline of an adapter (None: of the base), kept in memory for the block's duration.

        `key` names it: equal keys, equal weights. Raises weights.WeightsError for an adapter that
        cannot be merged, EngineBusy when there is no memory, EngineFailed when it does not load.
        """
        slot = self._at_hand(key) or await self._made(adapter, key)
        slot.users += 1
        try:
            yield await _opened(slot, key)
        finally:
            slot.users -= 1
            slot.used_at = time.monotonic()
            self._released.set()
            self._idled.set()

    async def spare(self, key: str) -> None:
        """Return when nobody uses any pipeline, as they share the processor, and this one is loaded
        or has room beside the others: one that is closed for it is missed by the next client."""
        while not self._is_spared(key):
            self._idled.clear()
            await self._idled.wait()

    def _is_spared(self, key: str) -> bool:
        is_idle = not any(slot.users for slot in self._slots.values())
        return is_idle and (self._at_hand(key) is not None or self._fits())

    async def aclose(self) -> None:
        """Close every pipeline; requests in flight fail."""
        for key in list(self._slots):
            self._forget(key)
        if self._closing:
            await asyncio.wait(self._closing)

    def _at_hand(self, key: str) -> _Slot | None:
        slot = self._slots.get(key)
        return None if slot is None or slot.is_useless else slot

    async def _made(self, adapter: Path | None, key: str) -> _Slot:
        """A new slot; closes idle pipelines until there is memory for it, one caller at a time."""
        deadline = asyncio.get_running_loop().time() + self._patience
        async with self._changing:
            # Another caller may have made it while this one waited.
            while (slot := self._at_hand(key)) is None:
                if key in self._slots:
                    await self._forgotten(key)
                elif self._fits():
                    opening = asyncio.create_task(self._open(adapter, key), name=f"embedded-{key}")
                    self._slots[key] = _Slot(opening, self._each)
                elif (idle := self._idle()) is not None:
                    await self._forgotten(idle)
                else:
                    await self._release(key, deadline)
            return slot

    def _fits(self) -> bool:
        # One pipeline must be allowed, or a limit that is set too low would mean no answers at all.
        in_memory = sum(slot.bytes for slot in self._slots.values())
        return not self._slots or in_memory + self._each <= self._limit

    def _idle(self) -> str | None:
        """The pipeline that nobody has used for longest."""
        return next((key for key in self.loaded if not self._slots[key].users), None)

    async def _release(self, key: str, deadline: float) -> None:
        """Wait until somebody has done with a pipeline."""
        self._released.clear()
        try:
            async with asyncio.timeout_at(deadline):
                await self._released.wait()
        except TimeoutError:
            in_use = ", ".join(self.loaded)
            raise EngineBusy(f"no memory for {key}: {in_use} are in use") from None

    async def _forgotten(self, key: str) -> None:
        # `wait` and not `await`: a caller that is cancelled must not leave a worker half closed.
        await asyncio.wait([self._forget(key)])

    def _forget(self, key: str) -> asyncio.Task[None]:
        closing = asyncio.create_task(_close(self._slots.pop(key)), name=f"embedded-close-{key}")
        self._closing.add(closing)
        closing.add_done_callback(self._closing.discard)
        log.info("embedded_pipeline_closed", key=key)
        return closing

    async def _open(self, adapter: Path | None, key: str) -> Pipeline:
        started = time.monotonic()
        model = await asyncio.to_thread(self._files.find_or_make, adapter)
        merged = time.monotonic()
        pipeline = await Pipeline.open(
            model,
            kv_mib=self._workers.kv_mib,
            max_running=self._workers.max_running,
            max_waiting=self._workers.max_waiting,
            threads=self._workers.threads,
        )
        ready = time.monotonic()
        log.info(
            "embedded_pipeline_opened",
            key=key,
            merge_s=round(merged - started, 3),
            load_s=round(ready - merged, 3),
        )
        return pipeline


def estimate(base: Path, workers: Workers) -> int:
    """Bytes of memory of one worker, rather more than less."""
    return int(RESIDENT * MERGED * base.stat().st_size) + OVERHEAD + workers.kv_mib * MIB


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


class MergedFiles:
    """The directory of merged files. All methods block: call them in a thread."""

    def __init__(self, base: Path, directory: Path, max_files: int) -> None:
        self._base = base
        self._directory = directory
        self._max_files = max_files

    def find_or_make(self, adapter: Path | None) -> Path:
        """The merged file of an adapter, whole; made when it is missing or damaged.

        One process makes it, others that want it at the same time wait.
        """
        self._directory.mkdir(parents=True, exist_ok=True)
        target = self._directory / f"{self._digest(adapter)}.gguf"
        with _locked(target.with_suffix(".lock")):
            if not _is_whole(target):
                _merge(self._base, adapter, target)
                _vouch(target)
        os.utime(target)
        self._prune()
        return target

    def _digest(self, adapter: Path | None) -> str:
        """Name of everything that decides the merged file's content."""
        parts = [str(MERGE_VERSION), self._base_sha256]
        if adapter is not None:
            parts += [
                _sha256(adapter / weights.CONFIG_NAME),
                _sha256(adapter / weights.WEIGHTS_NAME),
            ]
        return hashlib.sha256(" ".join(parts).encode()).hexdigest()

    @functools.cached_property
    def _base_sha256(self) -> str:
        return _sha256(self._base)

    def _prune(self) -> None:
        """Remove the files not used for longest; a worker that has loaded one keeps it."""
        with suppress(FileNotFoundError):  # another process was faster
            files = sorted(self._directory.glob("*.gguf"), key=lambda path: path.stat().st_mtime)
            for path in files[: -self._max_files]:
                for suffix in (".gguf", ".json", ".lock"):
                    path.with_suffix(suffix).unlink(missing_ok=True)


def _merge(base: Path, adapter: Path | None, target: Path) -> None:
    """weights.merge in a process of its own.

    In a thread of this one its linear algebra would run while workers are started: BLAS's fork
    handlers then wait for each other, and the proxy stands still for ever (docs/LOG.md).
    """
    root = str(Path(proxy.__file__).parents[1])
    paths = os.pathsep.join(filter(None, [root, os.environ.get("PYTHONPATH")]))
    ended = subprocess.run(  # noqa: S603  # our own interpreter and module
        [sys.executable, "-m", weights.__name__, base, adapter or "", target],
        env=os.environ | {"PYTHONPATH": paths},
        capture_output=True,
        text=True,
        check=False,
    )
    if ended.returncode == weights.REFUSED:
        raise weights.WeightsError(ended.stderr.strip())
    if ended.returncode:
        raise EngineFailed(f"merging {adapter or base} failed: {ended.stderr[-500:]}")


def _sha256(path: Path) -> str:
    try:
        with path.open("rb") as file:
            return hashlib.file_digest(file, "sha256").hexdigest()
    except OSError as error:
        raise weights.WeightsError(f"{path}: {error.strerror}") from error


def _is_whole(path: Path) -> bool:
    try:
        expected = msgspec.json.decode(path.with_suffix(".json").read_bytes(), type=Merged)
        return path.stat().st_size == expected.size and _sha256(path) == expected.sha256
    except (OSError, msgspec.MsgspecError):
        return False


def _vouch(path: Path) -> None:
    merged = Merged(path.stat().st_size, _sha256(path))
    staged = path.with_suffix(".json.tmp")
    staged.write_bytes(msgspec.json.encode(merged))
    staged.replace(path.with_suffix(".json"))


@contextmanager
def _locked(path: Path) -> Iterator[None]:
    """Hold a lock between processes; it ends with the process, however that ends."""
    with path.open("w") as file:
        fcntl.flock(file, fcntl.LOCK_EX)
        yield
