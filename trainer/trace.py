"""From a served answer to all that it came of, and back.

    exchange ─answered by→ adapter ─→ run ─→ dataset ─→ rows ─→ exchanges
    exchange ─made into→ rows ─of→ datasets ─learnt by→ adapters

What is not here any more, such as a dataset that was removed, is named as unknown.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Literal, NamedTuple, TypeAlias

import msgspec

from proxy.protocol.adapter import AdapterError
from trainer import dataset, rows
from trainer.dataset import SEALED, SIDES
from trainer.errors import DatasetError, TraceError
from trainer.registry.registry import Entry, Registry
from trainer.registry.taint import learnt_from

if TYPE_CHECKING:
    from proxy.record.shelf import Shelf

Kind: TypeAlias = Literal["exchange", "adapter", "row"]


class Answered(msgspec.Struct, frozen=True, kw_only=True):
    """A request that was answered, without what was said."""

    id: str
    request_id: str
    started_at: float
    """Seconds since the epoch."""
    tenant: str
    domain: str
    outcome: str
    backend: str
    """Who gave the answer; empty where nobody did."""
    adapter: str | None
    """None: the base model, or a cloud."""


class Origin(msgspec.Struct, frozen=True, kw_only=True):
    """What an adapter was made of."""

    entry: Entry
    datasets: list[str]
    """Directories that hold the dataset, if any does still."""
    rows: dict[str, int]
    """Side → rows of the dataset; empty where it is not here."""
    exchanges: list[str]
    """Ids of recorded exchanges that it learnt from."""


class Lesson(msgspec.Struct, frozen=True, kw_only=True):
    """A row that was made, and what became of it."""

    row: str
    source: str
    exchange: str
    dataset: str
    """Directory."""
    side: str
    """Empty where the row was dropped."""
    dropped: str
    """Step and reason; empty where it was kept."""


class Trace(msgspec.Struct, frozen=True, kw_only=True):
    """What is known of an exchange, an adapter or a row."""

    name: str
    kind: Kind
    answered: Answered | None = None
    origin: Origin | None = None
    """Of the adapter that was asked about, or that answered."""
    lessons: list[Lesson] = []
    """Rows that the exchange became, or the row itself."""
    learners: list[Entry] = []
    """Adapters that learnt from it."""
    unknown: list[str] = []
    """What could not be found, and where it was looked for."""


class Places(NamedTuple):
    """Where is looked."""

    registry: Registry
    datasets: Mapping[Path, dataset.Manifest]
    records: Sequence[Shelf]

    @classmethod
    def of(cls, registry: Registry, runs: Sequence[Path], records: Sequence[Shelf]) -> Places:
        """Datasets are found anywhere below `runs`."""
        return cls(registry, dict(_datasets(runs)), records)

    def directories(self, fingerprint: str) -> list[Path]:
        """Datasets with these rows."""
        return [path for path, said in self.datasets.items() if said.fingerprint == fingerprint]


def trace(name: str, places: Places) -> Trace:
    """What is known of an exchange (its id, or its request's), an adapter or a row.

    Raises TraceError where nothing of that name is known.
    """
    if name in places.registry.ids():
        origin, unknown = _origin(name, places)
        return Trace(name=name, kind="adapter", origin=origin, unknown=unknown)
    found = _exchange(name, places) or _row(name, places)
    if found is None:
        raise TraceError(
            f"no exchange, adapter or row {name!r} is known to the registry {places.registry},"
            f" {_counted(len(places.datasets), 'dataset')} and"
            f" {_counted(len(places.records), 'record')}; name more places"
            " (--registry, --runs, --record)"
        )
    return found


def _exchange(name: str, places: Places) -> Trace | None:
    answered = _answered(name, places)
    id = answered.id if answered else name
    lessons = [one for one in _lessons(id, places) if one.exchange == id]
    learners = _learners(id, places)
    erased = any(id in shelf.erased for shelf in places.records)
    if not (answered or lessons or learners or erased):
        return None
    unknown = [] if answered else [_lost(id, erased, places)]
    origin = None
    if answered and answered.adapter:
        try:
            origin, more = _origin(answered.adapter, places)
            unknown += more
        except AdapterError as error:
            unknown.append(f"the adapter {answered.adapter}: {error}")
    return Trace(
        name=id,
        kind="exchange",
        answered=answered,
        origin=origin,
        lessons=lessons,
        learners=learners,
        unknown=unknown,
    )


def _row(name: str, places: Places) -> Trace | None:
    lessons = list(_lessons(name, places))
    if not lessons:
        return None
    kept = {Path(lesson.dataset) for lesson in lessons if lesson.side}
    prints = {places.datasets[path].fingerprint for path in kept}
    learners = [entry for entry in places.registry.ls() if entry.dataset in prints]
    return Trace(name=name, kind="row", lessons=lessons, learners=learners)


def _answered(name: str, places: Places) -> Answered | None:
    for shelf in places.records:
        exchange = shelf.find(name)
        if exchange is None:
            continue
        answering = [one for one in exchange.attempts[-1:] if one.outcome == "completed"]
        last = answering[0] if answering else None
        return Answered(
            id=exchange.id,
            request_id=exchange.request_id,
            started_at=exchange.started_at,
            tenant=exchange.tenant,
            domain=exchange.domain,
            outcome=exchange.outcome,
            backend=last.backend if last else "",
            adapter=last.adapter if last else None,
        )
    return None


def _lost(id: str, erased: bool, places: Places) -> str:
    if erased:
        return f"the exchange {id}: it was erased from the record"
    return f"the exchange {id}: it is not in {_counted(len(places.records), 'record')}"


def _counted(count: int, noun: str) -> str:
    """`1 record`, `2 records`."""
    return f"{count} {noun}{'' if count == 1 else 's'}"


def _origin(id: str, places: Places) -> tuple[Origin, list[str]]:
    """What an adapter was made of, and what of it is not known."""
    entry = places.registry.entry(id)
    held = places.directories(entry.dataset)
    fingerprints = {places.datasets[path].fingerprint: path for path in held}
    exchanges = learnt_from(places.registry, id, fingerprints)
    unknown = []
    if not held:
        unknown.append(f"the dataset {entry.dataset} of {id}: it is in none of the places named")
    if not held and places.registry.lineage(id) is None:
        unknown.append(f"the exchanges that {id} learnt from: its bundle does not say")
    return (
        Origin(
            entry=entry,
            datasets=[str(path) for path in held],
            rows=dict(places.datasets[held[0]].rows) if held else {},
            exchanges=sorted(exchanges),
        ),
        unknown,
    )


def _learners(exchange: str, places: Places) -> list[Entry]:
    """Adapters that learnt from an exchange."""
    by_fingerprint = {said.fingerprint: path for path, said in places.datasets.items()}
    return [
        entry
        for entry in places.registry.ls()
        if exchange in learnt_from(places.registry, entry.id, by_fingerprint)
    ]


def _lessons(name: str, places: Places) -> Iterator[Lesson]:
    """Rows of this id, or of the exchange of this id, in any dataset."""
    for directory in places.datasets:
        try:
            fates = dataset.why(directory, name)
        except DatasetError:
            # It was made by hand, and nobody kept what became of the rows.
            yield from _written(directory, name)
            continue
        for fate in fates:
            yield Lesson(
                row=fate.row,
                source=fate.source,
                exchange=fate.exchange,
                dataset=str(directory),
                side="" if fate.reason else fate.step,
                dropped=f"{fate.step}: {fate.reason}" if fate.reason else "",
            )


def _written(directory: Path, name: str) -> Iterator[Lesson]:
    for side in (*SIDES, SEALED):
        path = directory / f"{side}.jsonl"
        for row in rows.read(path) if path.exists() else ():
            if name in (row.id, row.exchange):
                yield Lesson(
                    row=row.id,
                    source=row.source,
                    exchange=row.exchange,
                    dataset=str(directory),
                    side=side,
                    dropped="",
                )


def _datasets(runs: Sequence[Path]) -> Iterator[tuple[Path, dataset.Manifest]]:
    for place in runs:
        for path in sorted(place.rglob("train.jsonl")):
            try:
                yield path.parent, dataset.manifest(path.parent)
            except DatasetError:
                continue  # one that was never finished
