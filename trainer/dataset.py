"""A dataset on disk: rows on four sides, and a manifest that says what made them.

train       what is trained on, in all its variations
validation  rows of the training side, to watch progress
seen        questions held out, about tools that training shows
unseen      questions about tools that training never shows
sealed      held out too, and opened once for each candidate, by the gate

train.jsonl …    one row a line; a row's id is the hash of its content
manifest.json    written last: it marks a whole dataset
fates.jsonl      what became of every row that was read, for `dataset why`
openings.jsonl   who opened the sealed rows, and when
tainted.json     there when rows of it were erased from the record since
"""

from __future__ import annotations

import hashlib
import time
from collections.abc import Iterable, Iterator, Mapping
from pathlib import Path

import msgspec

from trainer import rows
from trainer.errors import DatasetError, cause_of
from trainer.rows import Row

SIDES = ("train", "validation", "seen", "unseen")
SEALED = "sealed"
LAYOUT = 2
MANIFEST, FATES, OPENINGS, TAINTED = (
    *("manifest.json", "fates.jsonl", "openings.jsonl", "tainted.json"),
)


class Dataset(msgspec.Struct, frozen=True, kw_only=True):
    """Four lists of rows that share no question and, train to unseen, no tool."""

    train: list[Row]
    validation: list[Row]
    seen: list[Row]
    unseen: list[Row]
    dropped: dict[str, int]
    """Reason → rows left out."""

    @property
    def fingerprint(self) -> str:
        """Hash over all rows and what they accept, in order."""
        return fingerprint(row for side in SIDES for row in getattr(self, side))


class Example(msgspec.Struct, frozen=True, omit_defaults=True):
    """A row that a step dropped or changed, as it was before and after."""

    place: str
    """Where the row comes from."""
    before: str
    after: str = ""
    """Empty where it fell."""
    detail: str = ""


class StepReport(msgspec.Struct, frozen=True, kw_only=True):
    """One step of the funnel."""

    name: str
    version: int = 0
    """Of the filter; 0 for steps that are none."""
    settings: msgspec.Raw = msgspec.Raw(b"{}")
    entered: int
    dropped: dict[str, int]
    """Reason → rows."""
    changed: int = 0
    """Rows that left otherwise than they came."""
    examples: dict[str, list[Example]] = {}
    """Reason, or `changed` → some rows of it."""

    @property
    def left(self) -> int:
        return self.entered - sum(self.dropped.values())


class Slice(msgspec.Struct, frozen=True):
    """Rows of one tool or tenant: how many were read, how many are on a side."""

    read: int
    kept: int


class Manifest(msgspec.Struct, frozen=True, kw_only=True):
    """What made a dataset, and what became of the rows. `show` prints it."""

    layout: int = LAYOUT
    fingerprint: str
    """Of the four sides; what a bundle says that it was trained on."""
    sealed: str = ""
    """Of the sealed rows; empty where there are none."""
    rows: dict[str, int]
    """Side → rows in it; examples, on the training side."""
    dropped: dict[str, int]
    """Reason → rows left out."""
    domain: str = ""
    sources: msgspec.Raw = msgspec.Raw(b"[]")
    recipe: msgspec.Raw = msgspec.Raw(b"null")
    versions: dict[str, str] = {}
    """Of Headrace's curation code (a hash) and of the libraries that have a say."""
    skipped: dict[str, int] = {}
    """Reason → rows that could not be read."""
    steps: list[StepReport] = []
    """The funnel."""
    tools: dict[str, Slice] = {}
    tenants: dict[str, Slice] = {}
    largest_cluster: int = 0
    """Rows in the largest set of groups that are linked."""
    exchanges: int = 0
    """Recorded exchanges that rows of it are made of."""
    isolation: str = ""
    """What held the code that was run; empty where none was."""


class Fate(msgspec.Struct, frozen=True, omit_defaults=True):
    """What became of one row that was read."""

    row: str
    source: str
    exchange: str = ""
    step: str = ""
    """Where it fell, or the side that it is on."""
    reason: str = ""
    """Empty where it is on a side."""
    detail: str = ""


class Opening(msgspec.Struct, frozen=True):
    """Somebody looked at the sealed rows."""

    candidate: str
    at: float
    """Seconds since the epoch."""


class Taint(msgspec.Struct, frozen=True):
    """Rows of the dataset are made of exchanges that were erased since."""

    exchanges: int
    rows: dict[str, int]
    """Side → rows, examples counted."""
    found_at: float


# ---------------------------------------------------------------- writing and reading


def fingerprint(of: Iterable[Row]) -> str:
    """Hash over rows and what they accept, in order."""
    whole = hashlib.sha256()
    for row in of:
        whole.update(row.id.encode() + msgspec.json.encode(row.accepted))
    return f"sha256:{whole.hexdigest()}"


def write(dataset: Dataset, directory: Path) -> None:
    """A dataset made by hand: one file a side, and the manifest last."""
    directory.mkdir(parents=True, exist_ok=True)
    for side in SIDES:
        rows.write(directory / f"{side}.jsonl", getattr(dataset, side))
    counts = {side: len(getattr(dataset, side)) for side in SIDES}
    manifest = Manifest(fingerprint=dataset.fingerprint, rows=counts, dropped=dataset.dropped)
    write_manifest(manifest, directory)


def write_manifest(manifest: Manifest, directory: Path) -> None:
    """Mark the dataset as whole."""
    encoded = msgspec.json.format(msgspec.json.encode(manifest))
    (directory / MANIFEST).write_bytes(encoded + b"\n")


def manifest(directory: Path) -> Manifest:
    """What the manifest says; raises DatasetError where there is none."""
    try:
        written = (directory / MANIFEST).read_bytes()
        said = msgspec.json.decode(written, type=Manifest)
    except (OSError, ValueError) as error:
        raise DatasetError(
            f"{directory} holds no dataset ({MANIFEST}: {cause_of(error)});"
            " run `headrace-trainer dataset build`"
        ) from error
    if said.layout > LAYOUT:
        raise DatasetError(
            f"{directory / MANIFEST} was written by a newer release (its layout is {said.layout},"
            f" this one reads up to {LAYOUT}); upgrade this one"
        )
    return said


def read(directory: Path) -> Dataset:
    """The dataset in a directory; raises DatasetError when it is not what its manifest says,
    and when it is tainted."""
    said = manifest(directory)
    tainted = taint(directory)
    if tainted is not None:
        raise DatasetError(
            f"{directory} is tainted: {tainted.exchanges} of its exchanges were erased; "
            "build it again"
        )
    sides = {side: list(rows.read(directory / f"{side}.jsonl")) for side in SIDES}
    dataset = Dataset(**sides, dropped=said.dropped)
    if dataset.fingerprint != said.fingerprint:
        raise DatasetError(f"{directory}: the rows are not those of its manifest; build it again")
    return dataset


def unseal(directory: Path, candidate: str) -> list[Row]:
    """The sealed rows, for one candidate, once; raises DatasetError the second time.

    Whoever looks twice, or tries candidates until one passes, measures their own patience: the
    openings are kept, and `dataset show` counts them.
    """
    said = manifest(directory)
    if not said.sealed:
        raise DatasetError(f"{directory} has no sealed rows; set `split.sealed` and build it again")
    if any(opening.candidate == candidate for opening in openings(directory)):
        raise DatasetError(f"{directory}: {candidate} has had its look at the sealed rows")
    sealed = _sealed(directory, said)
    with (directory / OPENINGS).open("ab") as file:
        file.write(msgspec.json.encode(Opening(candidate, time.time())) + b"\n")
    return sealed


def unsealed(directory: Path, candidate: str) -> list[Row]:
    """The sealed rows again, for a look that was interrupted; raises DatasetError for a candidate
    that has not had one. Who asks must know that no figure came of it."""
    if not any(opening.candidate == candidate for opening in openings(directory)):
        raise DatasetError(f"{directory}: {candidate} has not looked at the sealed rows")
    return _sealed(directory, manifest(directory))


def _sealed(directory: Path, said: Manifest) -> list[Row]:
    sealed = list(rows.read(directory / f"{SEALED}.jsonl"))
    if fingerprint(sealed) != said.sealed:
        raise DatasetError(f"{directory}: the sealed rows are not those of its manifest")
    return sealed


def openings(directory: Path) -> list[Opening]:
    """Who looked at the sealed rows, in order."""
    path = directory / OPENINGS
    content = path.read_bytes() if path.exists() else b""
    return msgspec.json.Decoder(Opening).decode_lines(content)


# ---------------------------------------------------------------- lineage


def fates(directory: Path) -> Iterator[Fate]:
    """What became of every row that was read; raises DatasetError where nobody kept it."""
    decoder = msgspec.json.Decoder(Fate)
    try:
        with (directory / FATES).open("rb") as lines:
            yield from map(decoder.decode, lines)
    except (OSError, ValueError) as error:
        raise DatasetError(
            f"{directory / FATES}: {cause_of(error)}; build the dataset again"
        ) from error


def why(directory: Path, name: str) -> list[Fate]:
    """The fates of a row, by its id, its exchange's id or its source."""
    found = [fate for fate in fates(directory) if name in (fate.row, fate.exchange, fate.source)]
    if found:
        return found
    named = _source(directory, name)
    return [fate for fate in fates(directory) if fate.source in named]


def _source(directory: Path, row: str) -> set[str]:
    """Where the row with this id comes from: on its side it offers other tools than when read."""
    paths = [directory / f"{side}.jsonl" for side in (*SIDES, SEALED)]
    written = (one for path in paths if path.exists() for one in rows.read(path))
    return {one.source for one in written if one.id == row}


class Difference(msgspec.Struct, frozen=True, kw_only=True):
    """What changed from one dataset to another."""

    added: dict[str, int]
    """Side → rows, by id, that only the second has."""
    removed: dict[str, int]
    moved: dict[str, int]
    """`train → seen` → rows that both have, on other sides."""
    recipe: list[str]
    """`filters.near.threshold: 0.85 → 0.9`"""
    versions: list[str]
    steps: list[str]
    """`near: 120 → 95 dropped`"""


def diff(first: Path, second: Path) -> Difference:
    """What changed from the first dataset to the second."""
    one, other = manifest(first), manifest(second)
    before, after = _sides(first), _sides(second)
    moves = ((before[r], after[r]) for r in before.keys() & after.keys())
    return Difference(
        added=_counted(after[row] for row in after.keys() - before.keys()),
        removed=_counted(before[row] for row in before.keys() - after.keys()),
        moved=_counted(f"{a} → {b}" for a, b in moves if a != b),
        recipe=list(changes(msgspec.json.decode(one.recipe), msgspec.json.decode(other.recipe))),
        versions=list(changes(one.versions, other.versions)),
        steps=list(changes(_drops(one), _drops(other))),
    )


def _sides(directory: Path) -> dict[str, str]:
    """Row id → the side that it is on, before it is varied."""
    return {fate.row: fate.step for fate in fates(directory) if not fate.reason}


def _counted(of: Iterable[str]) -> dict[str, int]:
    counts: dict[str, int] = {}
    for one in of:
        counts[one] = counts.get(one, 0) + 1
    return dict(sorted(counts.items()))


def _drops(of: Manifest) -> dict[str, str]:
    return {step.name: f"{sum(step.dropped.values())} dropped" for step in of.steps}


def changes(one: object, other: object, path: str = "") -> Iterator[str]:
    """`lora.rank: 8 → 16`, for each leaf of two settings that differs."""
    if isinstance(one, Mapping) and isinstance(other, Mapping):
        for key in sorted({*one, *other}):
            yield from changes(one.get(key), other.get(key), f"{path}.{key}" if path else key)
    elif one != other:
        yield f"{path}: {one} → {other}"


def find_taint(directory: Path, erased: frozenset[str]) -> Taint | None:
    """Mark the dataset where rows of it are made of erased exchanges; returns what was found."""
    manifest(directory)
    sides = (*SIDES, SEALED)
    paths = [(side, directory / f"{side}.jsonl") for side in sides]
    counts: dict[str, int] = {}
    found: set[str] = set()
    for side, path in paths:
        for row in rows.read(path) if path.exists() else ():
            if row.exchange in erased:
                found.add(row.exchange)
                counts[side] = counts.get(side, 0) + 1
    if not found:
        return None
    tainted = Taint(len(found), counts, time.time())
    (directory / TAINTED).write_bytes(msgspec.json.encode(tainted))
    return tainted


def taint(directory: Path) -> Taint | None:
    """What `find_taint` found, once."""
    path = directory / TAINTED
    return msgspec.json.decode(path.read_bytes(), type=Taint) if path.exists() else None
