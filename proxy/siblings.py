"""Workers of one proxy, which share a port: whoever is asked for what all know asks the others.

Each answers whoever connects to its socket, in a directory that no other user can enter: one line
with the question, then all of the answer. Counters and histograms add up; of what is so now, some
adds up, and of the rest the largest counts.
"""

from __future__ import annotations

import asyncio
import os
import signal
from collections.abc import AsyncIterator, Awaitable, Callable, Iterable, Sequence
from contextlib import asynccontextmanager
from pathlib import Path
from typing import NamedTuple, TypeAlias

import msgspec
from prometheus_client import Metric

from proxy.errors import ProxyError

PLACE = "HEADRACE_WORKER"
"""Environment variable that makes a process a worker: what `Place` holds, with commas between."""
_MOST = 64 * 1024 * 1024
"""Bytes that one may tell."""
_SUMMED = frozenset({
    "headrace_in_flight", "headrace_record_waiting", "headrace_replica_in_flight",
    "headrace_shadow_waiting", "process_open_fds", "process_resident_memory_bytes",
    "process_virtual_memory_bytes",
})  # fmt: skip
"""Gauges that add up over workers."""

_Told: TypeAlias = list[tuple[str, str, str, list[tuple[str, dict[str, str], float]]]]
_decoder = msgspec.msgpack.Decoder(_Told)


class Unheard(ProxyError):
    """A worker did not answer: without its numbers, for one, counters would seem to go back."""

    status = 503
    type = "server_error"
    code = "worker_unheard"


class Place(NamedTuple):
    """Which worker this process is."""

    number: int
    among: int
    listening: int
    """File descriptor of the socket that all of them accept from."""
    parent: int
    """File descriptor that comes to its end with the process that started the workers."""
    directory: Path

    @classmethod
    def found(cls) -> Place | None:
        """From the environment; None where this process is no worker."""
        said = os.environ.get(PLACE)
        if said is None:
            return None
        number, among, listening, parent, directory = said.split(",", 4)
        return cls(int(number), int(among), int(listening), int(parent), Path(directory))

    def __str__(self) -> str:
        return ",".join(map(str, self))


Answer: TypeAlias = Callable[[], Awaitable[bytes]]


class Siblings:
    """The other workers."""

    def __init__(self, place: Place) -> None:
        self._place = place
        self._answers: dict[str, Answer] = {}

    def tell(self, question: str, answer: Answer) -> None:
        """Answer a question of the others, a single word, from now on so."""
        self._answers[question] = answer

    @asynccontextmanager
    async def telling(self) -> AsyncIterator[None]:
        """Answer the others, and end when who started the workers has, as long as this lasts."""
        loop = asyncio.get_running_loop()
        loop.add_reader(self._place.parent, self._orphaned)
        try:
            path = self._path(self._place.number)
            async with await asyncio.start_unix_server(self._answer, path):
                yield
        finally:
            loop.remove_reader(self._place.parent)

    async def ask(self, question: str, patience_s: float) -> list[bytes]:
        """What each of the others answers within so many seconds; raises Unheard."""
        others = [n for n in range(self._place.among) if n != self._place.number]
        try:
            async with asyncio.timeout(patience_s):
                return await asyncio.gather(*(self._ask(number, question) for number in others))
        except (OSError, TimeoutError, ValueError) as error:
            raise Unheard("a worker of this proxy does not answer; ask again") from error

    async def _ask(self, number: int, question: str) -> bytes:
        reader, writer = await asyncio.open_unix_connection(self._path(number))
        try:
            writer.write(question.encode() + b"\n")
            said = bytearray()
            while piece := await reader.read(1024 * 1024):
                said += piece
                if len(said) > _MOST:
                    raise ValueError(f"worker {number} tells more than {_MOST} bytes")
            if not said:
                raise ValueError(f"worker {number} tells nothing")
            return bytes(said)
        finally:
            writer.close()

    async def _answer(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        try:
            question = (await reader.readline()).decode().strip()
            if question in self._answers:
                writer.write(await self._answers[question]())
                await writer.drain()
        except ConnectionError:
            pass  # Whoever asked has had enough.
        finally:
            writer.close()

    def _orphaned(self) -> None:
        """Nobody is left who would restart a worker, or end it: end as one is told to."""
        asyncio.get_running_loop().remove_reader(self._place.parent)
        os.kill(os.getpid(), signal.SIGTERM)

    def _path(self, number: int) -> Path:
        return self._place.directory / f"{number}.socket"


def merged(told: Iterable[Sequence[Metric]]) -> list[Metric]:
    """The metrics of several workers as those of one."""
    families: dict[str, Metric] = {}
    values: dict[str, dict[tuple[str, tuple[tuple[str, str], ...]], float]] = {}
    for metrics in told:
        for metric in metrics:
            families.setdefault(metric.name, metric)
            of_name = values.setdefault(metric.name, {})
            adds_up = metric.type != "gauge" or metric.name in _SUMMED
            for sample in metric.samples:
                key = (sample.name, tuple(sorted(sample.labels.items())))
                former = of_name.get(key, 0.0)
                of_name[key] = former + sample.value if adds_up else max(former, sample.value)
    return [_family(families[name], of_name) for name, of_name in values.items()]


def _family(like: Metric, values: dict[tuple[str, tuple[tuple[str, str], ...]], float]) -> Metric:
    family = Metric(like.name, like.documentation, like.type)
    for (name, labels), value in values.items():
        family.add_sample(name, dict(labels), value)
    return family


def written(metrics: Iterable[Metric]) -> bytes:
    """Metrics as one worker tells them to another."""
    told = [
        (m.name, m.documentation, m.type, [(s.name, s.labels, float(s.value)) for s in m.samples])
        for m in metrics
    ]
    return msgspec.msgpack.encode(told)


def read(said: bytes) -> list[Metric]:
    """Metrics as another worker told them; raises msgspec.DecodeError, a ValueError."""
    metrics = []
    for name, about, kind, samples in _decoder.decode(said):
        metric = Metric(name, about, kind)
        for sample in samples:
            metric.add_sample(*sample)
        metrics.append(metric)
    return metrics
