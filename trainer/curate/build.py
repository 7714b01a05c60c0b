"""From rows to a dataset, on one screen.

rows ─filters (in parallel)→ table ─exact, near, balance→ kept ─split→ sides ─leaks, variety→ files

Up to the table each row is judged by itself; from there on rows are compared, by their sketches,
in one place. Rows lie on disk throughout. The same rows and recipe give the same dataset, whatever
the order of the rows and whatever does the work.
"""

from __future__ import annotations

import random
import tempfile
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import ExitStack, closing
from pathlib import Path
from typing import TypeAlias

import msgspec
import numpy as np
from numpy.typing import NDArray

from trainer import dataset, rows
from trainer.curate import balance, contamination, duplicates, sides, variety
from trainer.curate.chain import Judged, Plan, filters
from trainer.curate.execute import batched, executor
from trainer.curate.fates import Fates
from trainer.curate.funnel import Funnel
from trainer.curate.sides import Ledger, Member
from trainer.curate.sketch import PERMUTATIONS, signatures
from trainer.curate.spool import Part, Spool
from trainer.curate.table import Table
from trainer.curate.versions import isolation, versions
from trainer.dataset import SEALED, SIDES, Dataset, Manifest
from trainer.errors import DatasetError
from trainer.recipe import Recipe
from trainer.rows import Row
from trainer.sources import rows as read_sources
from trainer.sources.base import Skips

Watch: TypeAlias = Callable[[str, int, int | None], None]
"""Told of a step, how many rows it has done, and of how many, where that is known."""
_TOLD_EVERY = 1024


def build(
    source: Iterable[Row],
    recipe: Recipe,
    directory: Path,
    *,
    on: str = "1",
    skips: Skips | None = None,
    erased: frozenset[str] = frozenset(),
    watch: Watch = lambda step, done, total: None,
) -> Manifest:
    """Write the dataset of a recipe to `directory`; returns its manifest.

    `on`: cores, `all`, or `ray`; `erased`: exchanges of which nothing may be used. Raises
    DatasetError where no row is left.
    """
    directory.mkdir(parents=True, exist_ok=True)
    with ExitStack() as stack:
        folder = Path(
            stack.enter_context(tempfile.TemporaryDirectory(prefix=".build-", dir=directory))
        )
        run = _Build(recipe, folder, directory, watch, stack)
        run.judge(source, on, erased)
        run.deduplicate()
        run.balance()
        run.split()
        run.vary()
        return run.write(skips or Skips())


def passing(source: Iterable[Row], recipe: Recipe) -> Dataset:
    """The dataset of a recipe, for who does not keep it."""
    with tempfile.TemporaryDirectory() as directory:
        build(source, recipe, Path(directory))
        return dataset.read(Path(directory))


class _Build:
    def __init__(
        self, recipe: Recipe, folder: Path, directory: Path, watch: Watch, stack: ExitStack
    ) -> None:
        self._recipe, self._folder, self._directory = recipe, folder, directory
        self._watch, self._stack = watch, stack
        self._funnel = Funnel()
        self._fates = stack.enter_context(closing(Fates(folder / "fates.jsonl")))
        self._table = stack.enter_context(closing(Table(folder)))
        self._chance = random.Random(recipe.seed)
        self._kept: NDArray[np.bool_] = np.empty(0, bool)
        self._pairs: NDArray[np.int64] = np.empty((0, 2), np.int64)
        self._parts: dict[str, Part] = {}

    # ------------------------------------------------------------ one row at a time

    def judge(self, source: Iterable[Row], on: str, erased: frozenset[str]) -> None:
        """Every row through the filters; what passes them is in the table."""
        self._announce()
        self._evaluations = self._registered()
        settings = self._recipe.filters.decontaminate
        known = contamination.known(self._evaluations, settings) if settings else None
        run = executor(on)
        for batch, judged in run(Plan(self._recipe, known), batched(self._alive(source, erased))):
            for row, one in zip(batch, judged, strict=True):
                self._take(row, one)
            self._watch("filters", self._funnel.read, None)
        self._kept = np.ones(len(self._table), bool)

    def _announce(self) -> None:
        settings = self._recipe.filters
        self._funnel.announce("erased")
        for name, one in filters(self._recipe):
            self._funnel.announce(name, one.version, getattr(settings, name))
        for name, version in (("decontaminate", 1), ("exact", 1), ("near", 1), ("balance", 1)):
            if getattr(settings, name) is not None:
                self._funnel.announce(name, version, getattr(settings, name))
        self._funnel.announce("split", 2, self._recipe.split)
        if settings.decontaminate is not None and settings.decontaminate.own:
            self._funnel.announce("leaks", 1)
        self._funnel.announce("variety", 1, self._recipe.variety)

    def _registered(self) -> list[Row]:
        """The rows of the evaluation sets."""
        settings = self._recipe.filters.decontaminate
        return list(read_sources(settings.sets, Skips())) if settings else []

    def _alive(self, source: Iterable[Row], erased: frozenset[str]) -> Iterator[Row]:
        """The rows that may be used at all."""
        for row in source:
            self._funnel.count(row)
            if row.exchange and row.exchange in erased:
                self._funnel.drop("erased", "erased_from_the_record")
                self._fates.add(row, "erased", "erased_from_the_record")
            else:
                yield row

    def _take(self, row: Row, one: Judged) -> None:
        number = self._fates.add(row, one.step, one.reason, one.detail)
        if one.sketch is None:
            self._funnel.drop(one.step, one.reason)
            if self._funnel.wants(one.step, one.reason):
                self._funnel.show(one.step, one.reason, row, detail=one.detail)
            return
        self._table.add(one.row, one.sketch, number)
        if one.changed:
            self._funnel.change(one.changed)
            if self._funnel.wants(one.changed, "changed"):
                after = msgspec.json.decode(one.row, type=Row)
                self._funnel.show(one.changed, "changed", row, after)

    # ------------------------------------------------------------ rows beside rows

    def deduplicate(self) -> None:
        """Of rows that say the same, or nearly, the best one stays; none that an evaluation has."""
        order = self._table.order()
        settings = self._recipe.filters
        if settings.near is not None:
            self._pairs = self._near(order)
        exact = duplicates.same(self._table.column("same"), order)
        if settings.exact is not None:
            self._keep_firsts(exact, order, "exact", "the_same_again")
            self._pairs = np.concatenate([exact, self._pairs])
        if settings.near is not None:
            self._keep_firsts(self._pairs, order, "near", "nearly_the_same")

    def _near(self, order: NDArray[np.int64]) -> NDArray[np.int64]:
        """Pairs of rows that are alike; those like an evaluation's are dropped on the way."""
        near = self._recipe.filters.near
        assert near is not None
        self._watch("near duplicates", 0, len(self._table))
        own = self._table.signatures()
        settings = self._recipe.filters.decontaminate
        if settings is not None and settings.near and self._evaluations:
            given = b"".join(signatures(self._evaluations, near))
            asked = np.frombuffer(given, np.uint32).reshape(-1, PERMUTATIONS)
            leaks = duplicates.across(asked, own, near.threshold)
            self._drop(leaks, "decontaminate", "nearly_asked_in_an_evaluation")
        return duplicates.near(own, order, near.threshold)

    def _keep_firsts(
        self, pairs: NDArray[np.int64], order: NDArray[np.int64], step: str, reason: str
    ) -> None:
        alive = pairs[self._kept[pairs].all(axis=1)]
        labels = duplicates.clusters(alive, len(self._table))
        firsts = duplicates.firsts(labels, order)
        again = np.flatnonzero(self._kept & (firsts != np.arange(len(firsts))))
        ids = self._table.column("id")
        for index in again:
            self._fates.liken(self._table.rows.numbers[index], int(ids[firsts[index]]))
        self._drop(again, step, reason, firsts)

    def balance(self) -> None:
        """No tool, library or template has more rows than its cap."""
        caps = self._recipe.filters.balance
        if caps is None:
            return
        for name in ("tool", "library", "template"):
            most = getattr(caps, name)
            if most is not None:
                left = np.flatnonzero(self._kept)
                columns = self._table.column(name)[left], self._table.column("id")[left]
                over = balance.over(*columns, most)
                self._drop(left[over], "balance", f"too_many_of_a_{name}")

    def _drop(
        self,
        indices: NDArray[np.int64],
        step: str,
        reason: str,
        likes: NDArray[np.int64] | None = None,
    ) -> None:
        self._kept[indices] = False
        numbers = self._table.rows.numbers
        self._fates.settle((numbers[index] for index in indices), step, reason)
        self._funnel.drop(step, reason, len(indices))
        for index in indices[:3]:
            after = None if likes is None else self._table.rows[int(likes[index])]
            self._funnel.show(step, reason, self._table.rows[int(index)], after)

    # ------------------------------------------------------------ sides

    def split(self) -> None:
        """Each row on its side, where that gives nothing away."""
        settings = self._recipe.split
        self._clusters = sides.linked(self._table.column("group"), self._pairs)
        ledger = self._ledger()
        spool = self._spool("split")
        places: dict[str, list[int]] = {"train": [], "seen": [], "unseen": [], SEALED: []}
        self._of_cluster: list[int] = []
        keys = self._table.column("whole"), self._table.column("spelt")
        left = np.flatnonzero(self._kept)
        for done, index in enumerate(left[np.lexsort([key[left] for key in keys])]):
            row, number = self._table.rows[int(index)], self._table.rows.numbers[index]
            place = self._place(row, int(index), ledger)
            side = sides.side(row, place, settings)
            kept = sides.without(row, settings, keep_new=side == "unseen")
            if side == "nowhere" or kept is None:
                self._lose([number], "question_on_two_sides" if kept else "no_tool_left")
                continue
            places[side].append(len(spool))
            spool.add(kept, number)
            self._of_cluster.append(int(self._clusters[index]))
            if done % _TOLD_EVERY == 0:
                self._watch("split", done, len(left))
        self._parts = {side: Part(spool, indices) for side, indices in places.items()}
        self._part_sides()

    def _ledger(self) -> Ledger | None:
        settings = self._recipe.split
        if not settings.ledger:
            if settings.newest:
                raise DatasetError(
                    "split.newest needs a ledger: what is newest today is not so for ever"
                )
            return None
        ledger = Ledger(Path(settings.ledger))
        columns = [self._table.column(name)[self._kept] for name in ("group", "at", "abstains")]
        rows = zip(*columns, self._clusters[self._kept], strict=True)
        members = (Member(f"{g:016x}", int(c), float(at), bool(no)) for g, at, no, c in rows)
        ledger.settle(members, settings)
        return ledger

    def _place(self, row: Row, index: int, ledger: Ledger | None) -> sides.Place:
        if ledger is None:
            return sides.place(row.group, bool(row.functions) and not row.calls, self._recipe.split)
        return ledger.places[f"{self._table.column('group')[index]:016x}"]

    def _part_sides(self) -> None:
        """Drop what stands on two sides, and set the validation rows apart."""
        parts, most = self._parts, self._recipe.split.validation
        held_out = parts["seen"] + parts["unseen"] + parts[SEALED]
        parts["seen"] = self._apart(parts["seen"], parts[SEALED])
        parts["train"] = self._without_leaks(self._apart(parts["train"], held_out), held_out)
        clusters = [self._of_cluster[index] for index in parts["train"].indices]
        chosen = sides.fitting(clusters, most)
        watched = [cluster in chosen for cluster in clusters]
        parts["validation"] = parts["train"].where(watched)
        parts["train"] = parts["train"].where([not one for one in watched])

    def _without_leaks(self, train: Part, held_out: Part) -> Part:
        """The training rows whose question shares no long run of words with a held-out one."""
        settings = self._recipe.filters.decontaminate
        if settings is None or not settings.own or not len(held_out):
            return train
        asked = contamination.questions(held_out, settings.words)
        clean = [contamination.is_clean(asked, row, settings.words) for row in train]
        lost = train.where([not one for one in clean])
        self._lose(lost.numbers, "shares_words_with_a_test", "leaks")
        for row in lost[:3]:
            self._funnel.show("leaks", "shares_words_with_a_test", row)
        return train.where(clean)

    def _apart(self, part: Part, others: Part) -> Part:
        """The rows of whose cluster no other row is held out."""
        taken = {self._of_cluster[index] for index in others.indices}
        apart = [self._of_cluster[index] not in taken for index in part.indices]
        self._lose(part.where([not one for one in apart]).numbers, "question_on_two_sides")
        return part.where(apart)

    def _lose(self, numbers: Sequence[int], reason: str, step: str = "split") -> None:
        self._fates.settle(numbers, step, reason)
        self._funnel.drop(step, reason, len(numbers))

    # ------------------------------------------------------------ variety

    def vary(self) -> None:
        """Examples of the training rows, and held-out rows sorted by what training then shows."""
        train, settings = self._parts["train"], self._recipe.variety
        examples = self._spool("examples")
        self._watch("variety", 0, len(train))
        shown = variety.varied(train, settings, self._chance, examples, self._recipe.seed)
        self._examples = Part(examples, shown)
        used = set(examples.numbers)
        unused = [number for number in train.numbers if number not in used]
        self._lose(unused, "too_many_negatives", "variety")
        self._sort_held_out(examples)

    def _sort_held_out(self, examples: Spool) -> None:
        """A tool that training only shows as one not to call belongs to neither test side."""
        called = {call.name for row in examples for call in row.calls}
        shown = {function.name for row in examples for function in row.functions}
        seen, parts = self._parts["seen"], self._parts
        known = [all(call.name in called for call in row.calls) for row in seen]
        new = [any(call.name not in shown for call in row.calls) for row in seen]
        pairs = list(zip(known, new, strict=True))
        neither = seen.where([not (a or b) for a, b in pairs])
        self._lose(neither.numbers, "tool_only_a_distractor")
        parts["unseen"] = parts["unseen"] + seen.where([b and not a for a, b in pairs])
        parts["seen"] = self._apart(seen.where(known), parts["unseen"])

    def _spool(self, name: str) -> Spool:
        return self._stack.enter_context(closing(Spool(self._folder / f"{name}.jsonl")))

    # ------------------------------------------------------------ files

    def write(self, skips: Skips) -> Manifest:
        """Write the sides, the fates and, last, the manifest."""
        counts, used = self._write_sides(), self._settle()
        if not any(counts.values()):
            raise DatasetError(
                f"no row is left of {self._funnel.read}; see what the filters drop: "
                + ", ".join(f"{n} {reason}" for reason, n in self._funnel.dropped().items())
            )
        self._fates.write(self._directory / dataset.FATES)
        manifest = Manifest(
            fingerprint=dataset.fingerprint(self._written(*SIDES)),
            sealed=dataset.fingerprint(self._written(SEALED)) if SEALED in counts else "",
            rows=counts,
            dropped=self._funnel.dropped(),
            domain=self._recipe.domain,
            sources=msgspec.Raw(msgspec.json.encode(self._recipe.sources)),
            recipe=msgspec.Raw(msgspec.json.encode(self._recipe)),
            versions=versions(self._recipe),
            skipped=dict(skips.counts + skips.left_out),
            steps=self._funnel.reports(),
            tools=self._funnel.slices("tool"),
            tenants=self._funnel.slices("tenant"),
            largest_cluster=int(np.bincount(self._clusters).max(initial=0)),
            exchanges=used,
            isolation=isolation(self._recipe),
        )
        dataset.write_manifest(manifest, self._directory)
        return manifest

    def _write_sides(self) -> dict[str, int]:
        """The files of the sides; returns how many rows each has."""
        parts, write = self._parts, self._write_side
        seen, unseen = parts["seen"], parts["unseen"]
        counts = {"train": write("train", self._examples)}
        counts["validation"] = write("validation", parts["validation"])
        for side, part in (("seen", seen), ("unseen", unseen)):
            pool = variety.pooled(part)
            counts[side] = write(side, variety.offered_more(part, pool, self._chance))
        if self._recipe.split.sealed:
            counts[SEALED] = write(SEALED, parts[SEALED])
        return counts

    def _write_side(self, side: str, written: Iterable[Row]) -> int:
        count = 0
        with (self._directory / f"{side}.jsonl").open("wb") as file:
            for count, row in enumerate(written, start=1):
                file.write(msgspec.json.encode(row) + b"\n")
                if count % _TOLD_EVERY == 0:
                    self._watch(f"write {side}", count, None)
        return count

    def _settle(self) -> int:
        """Tell the fates which side each row is on; returns how many exchanges are used."""
        exchanges: set[str] = set()
        lost = set(self._parts["train"].numbers) - set(self._examples.numbers)
        for side, part in self._parts.items():
            numbers = part.numbers
            self._fates.settle((n for n in numbers if n not in lost), side)
            for row, number in zip(part, numbers, strict=True):
                if number not in lost:
                    self._funnel.keep(row)
                    exchanges.add(row.exchange)
        return len(exchanges - {""})

    def _written(self, *sides: str) -> Iterator[Row]:
        for side in sides:
            yield from rows.read(self._directory / f"{side}.jsonl")
