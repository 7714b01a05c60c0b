"""Which adapters learnt from exchanges that were erased since."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from pathlib import Path

import msgspec

from proxy.protocol import tombstones
from proxy.protocol.champions import now
from trainer import dataset, rows
from trainer.dataset import SIDES
from trainer.registry.registry import Registry, Taint


class Tainted(msgspec.Struct, frozen=True, kw_only=True):
    """An adapter that must be trained again."""

    id: str
    domain: str
    taint: Taint
    serving: list[str]
    """Domains that it is the champion of now: the urgent ones."""


def tainted(
    registry: Registry, records: Iterable[Path], datasets: Iterable[Path] = ()
) -> list[Tainted]:
    """The tainted bundles of a registry, by id; those that were not marked yet are marked now.

    `records` are directories of records, whose tombstones say what was erased. A bundle from before
    lineage was kept is judged by its dataset, if that is among `datasets`. A mark stays, wherever
    the tombstones went.
    """
    erased: frozenset[str] = frozenset().union(*map(tombstones.erased, records))
    by_fingerprint = {dataset.manifest(path).fingerprint: path for path in datasets}
    marked = registry.taints()
    for id in registry.ids():
        lost = len(erased & learnt_from(registry, id, by_fingerprint))
        if id not in marked and lost:
            marked[id] = Taint(exchanges=lost, found_at=now())
            registry.mark(id, marked[id])
    serving = registry.champions().serving
    return [
        Tainted(
            id=id,
            domain=registry.manifest(id).domain,
            taint=marked[id],
            serving=[domain for domain, champion in serving.items() if champion == id],
        )
        for id in registry.ids()
        if id in marked
    ]


def learnt_from(
    registry: Registry, id: str, datasets: Mapping[str, Path] | None = None
) -> frozenset[str]:
    """Ids of the exchanges that a bundle learnt from; empty where nothing tells.

    `datasets`: fingerprint → directory, for bundles that do not say it themselves.
    """
    lineage = registry.lineage(id)
    if lineage is not None:
        return frozenset(lineage.exchanges)
    made = (datasets or {}).get(registry.manifest(id).dataset_fingerprint)
    return frozenset() if made is None else exchanges(made)


def exchanges(made: Path) -> frozenset[str]:
    """Ids of the exchanges that a dataset's rows are made of, tainted or not."""
    paths = (made / f"{side}.jsonl" for side in SIDES)
    read = (row for path in paths if path.exists() for row in rows.read(path))
    return frozenset(row.exchange for row in read if row.exchange)
