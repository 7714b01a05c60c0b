"""Which side a row is on: by group, and for ever.

A group is a conversation; groups that say the same, or nearly, are linked, and linked groups are
one cluster. Nothing of a cluster is trained on when something of it is held out.

Without a ledger a group's side is a hash of its name: it depends on nothing else, so that no row
changes sides when rows are added. A cluster with groups on two sides keeps the held-out ones, and
leaves its training rows out.

With a ledger a cluster whose groups are all new gets one side as a whole, and the ledger remembers
it for each of its groups. A new group of an old cluster joins that cluster's side. When clusters of
two sides grow together, no group moves: the held-out ones stay, the training rows, and groups that
are new, are left out; what was trained on once never becomes a test.

A tool that is held out is so by the hash of its name: rows that call it are `unseen` whatever the
group.
"""

from __future__ import annotations

import hashlib
from collections import Counter
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Literal, NamedTuple, TypeAlias

import msgspec
import numpy as np
from numpy.typing import NDArray

from proxy.protocol import atomic
from trainer.curate.duplicates import Numbers, clusters
from trainer.errors import DatasetError
from trainer.recipe.curation import SplitSettings
from trainer.rows import Row

Place: TypeAlias = Literal["train", "test", "sealed", "nowhere"]
"""Where a group is. `nowhere`: what it says is on two sides already."""

LINKS = 50
"""A text that more groups than this begin with links none of them: `hello` gives nothing away, and
would make one cluster of everything."""


class _Entry(msgspec.Struct, frozen=True):
    group: str
    place: Place


def share(text: str) -> float:
    """A number in [0, 1) that a text always gets."""
    return int(hashlib.sha256(text.encode()).hexdigest()[:8], 16) / 2**32


def is_new(name: str, settings: SplitSettings) -> bool:
    """Whether a tool is one that training never shows."""
    return share("tool:" + name) < settings.unseen_tools


def place(group: str, abstains: bool, settings: SplitSettings) -> Place:
    """Where the hash puts a group. Where no tool fits, those of `unseen` are drawn by group."""
    drawn = share("question:" + group)
    if drawn >= 1 - settings.sealed:
        return "sealed"
    held_out = settings.seen + settings.unseen_tools if abstains else settings.seen
    return "test" if drawn < held_out else "train"


def side(row: Row, place: Place, settings: SplitSettings) -> str:
    """`train`, `seen`, `unseen`, `sealed` or `nowhere`."""
    if row.calls and is_new(row.calls[0].name, settings):
        return "unseen"
    if place != "test" or row.calls:
        return "seen" if place == "test" else place
    offered = [function.name for function in row.functions]
    return "unseen" if any(is_new(name, settings) for name in offered) else "seen"


def without(row: Row, settings: SplitSettings, keep_new: bool) -> Row | None:
    """The row without new tools; on the unseen side, where nothing fits, without the known ones.

    None where no tool is left. A row that offers none stays as it is.
    """
    if not row.functions or (keep_new and row.calls):
        return row
    functions = [f for f in row.functions if is_new(f.name, settings) == keep_new]
    return msgspec.structs.replace(row, functions=functions) if functions else None


# ---------------------------------------------------------------- clusters


def linked(groups: NDArray[np.uint64], pairs: Numbers) -> Numbers:
    """(n,) the cluster of each row, from each row's group and pairs of rows that are alike."""
    names, of_row = np.unique(groups, return_inverse=True)
    alike = clusters(pairs, len(groups)) if len(pairs) else np.arange(len(groups))
    edges = of_row[pairs] if len(pairs) else np.empty((0, 2), np.int64)
    edges = edges[~_is_common(alike, of_row)[pairs[:, 0]]] if len(pairs) else edges
    found: Numbers = clusters(edges.astype(np.int64), len(names))[of_row]
    return found


def fitting(clusters: Iterable[int], most: int) -> set[int]:
    """Clusters that have at most `most` rows together, from the cluster of each row: one after the
    other as they come, but for those that are larger than what is still wanted."""
    chosen: set[int] = set()
    for cluster, size in Counter(clusters).items():
        if size <= most:
            chosen.add(cluster)
            most -= size
    return chosen


def _is_common(alike: Numbers, of_row: NDArray[np.int64]) -> NDArray[np.bool_]:
    """(n,) whether a row is one that too many groups have."""
    both = np.unique(np.stack([alike, of_row], axis=1), axis=0)[:, 0]
    times = np.bincount(both, minlength=int(alike.max(initial=0)) + 1)
    common: NDArray[np.bool_] = times[alike] > LINKS
    return common


# ---------------------------------------------------------------- the ledger


class Member(NamedTuple):
    """What the ledger must know of a row to place its group."""

    group: str
    cluster: int
    at: float
    """Infinity where the row has no time."""
    abstains: bool
    """Whether it offers tools and calls none."""


class Ledger:
    """Each group's place, kept in a file that only grows."""

    def __init__(self, path: Path) -> None:
        self._path = path
        self.places: dict[str, Place] = {}
        decoder = msgspec.json.Decoder(_Entry)
        try:
            for line in path.read_bytes().splitlines() if path.exists() else ():
                entry = decoder.decode(line)
                self.places[entry.group] = entry.place
        except (OSError, ValueError) as error:
            raise DatasetError(f"{path}: {error}; restore it from a copy") from error

    def settle(self, members: Iterable[Member], settings: SplitSettings) -> None:
        """Give every group without a place one, and write them down."""
        by_cluster: dict[int, list[Member]] = {}
        for member in members:
            by_cluster.setdefault(member.cluster, []).append(member)
        fresh: dict[str, Place] = {}
        unplaced: list[list[Member]] = []
        for cluster in by_cluster.values():
            old = {self.places[m.group] for m in cluster if m.group in self.places}
            if not old:
                unplaced.append(cluster)
                continue
            joined = old.pop() if len(old) == 1 else "nowhere"
            fresh |= {m.group: joined for m in cluster if m.group not in self.places}
        fresh |= _placed(unplaced, settings)
        self._write(fresh)

    def _write(self, fresh: Mapping[str, Place]) -> None:
        self.places |= fresh
        self._path.parent.mkdir(parents=True, exist_ok=True)
        lines = [
            msgspec.json.encode(_Entry(group, fresh[group])) + b"\n" for group in sorted(fresh)
        ]
        before = self._path.read_bytes() if self._path.exists() else b""
        # Not appended: a process that is killed would leave half a line, which no later run reads.
        atomic.write(self._path, before + b"".join(lines))


def _placed(found: list[list[Member]], settings: SplitSettings) -> dict[str, Place]:
    """Places of clusters that are all new: drawn, or the newest to the test."""
    newest = _newest(found, settings) if settings.newest else None
    places: dict[str, Place] = {}
    for cluster in found:
        first = min(member.group for member in cluster)
        drawn = place(first, all(m.abstains for m in cluster), settings)
        if newest is not None and drawn != "sealed" and _newest_of(cluster) is not None:
            drawn = "test" if first in newest else "train"
        places |= {member.group: drawn for member in cluster}
    return places


def _newest_of(cluster: list[Member]) -> float | None:
    return max((m.at for m in cluster if m.at != float("inf")), default=None)


def _newest(found: list[list[Member]], settings: SplitSettings) -> set[str]:
    """Of the clusters with a time, the newest until they have their share of the rows."""
    timed = [(at, cluster) for cluster in found if (at := _newest_of(cluster)) is not None]
    room = settings.seen * sum(len(cluster) for _, cluster in timed)
    newest: set[str] = set()
    for _, cluster in sorted(timed, key=lambda one: (-one[0], min(m.group for m in one[1]))):
        if room < len(cluster):
            break
        room -= len(cluster)
        newest.add(min(member.group for member in cluster))
    return newest
