"""Rows that say the same, or nearly: found by sorting, in numpy, with 8 bytes a row and band.

Signatures are cut into bands; rows that agree in a band are candidates, and are duplicates when
their signatures' estimate of the Jaccard similarity reaches the threshold (Leskovec, Rajaraman,
Ullman, "Mining of Massive Datasets", 3.4). Signatures may lie on disk. What comes out depends on
the rows only, not on their order: of a bucket each row is compared with the best ranked and with
its neighbour in rank.
"""

from __future__ import annotations

from typing import Any, TypeAlias

import numpy as np
from numpy.typing import NDArray
from scipy.sparse import coo_array
from scipy.sparse.csgraph import connected_components

Numbers: TypeAlias = NDArray[np.int64]
Signatures: TypeAlias = NDArray[np.uint32]
"""(rows, permutations)."""

_BATCH = 65_536
"""Pairs that are compared at a time: some 64 MiB."""
_MISSED = 0.01
"""At the threshold itself at most this share of pairs shares no band."""


def same(keys: NDArray[Any], order: Numbers) -> Numbers:
    """Pairs (n, 2) of rows with equal keys: each with the first of its kind in `order`."""
    return _stars(keys, order)


def near(signatures: Signatures, order: Numbers, threshold: float) -> Numbers:
    """Pairs (n, 2) of rows whose signatures are at least so similar; not all of them."""
    rows = band_rows(signatures.shape[1], threshold)
    found = [np.empty((0, 2), np.int64)]
    for start in range(0, signatures.shape[1] - rows + 1, rows):
        keys = _keys(signatures, start, rows)
        found.append(_confirmed(_stars(keys, order, chained=True), signatures, threshold))
    return np.unique(np.concatenate(found), axis=0)


def across(given: Signatures, own: Signatures, threshold: float) -> Numbers:
    """(n,) which of `own` are at least so similar to one of `given`; not all of them."""
    rows = band_rows(own.shape[1], threshold)
    found = np.zeros(len(own), bool)
    for start in range(0, own.shape[1] - rows + 1, rows):
        keys = _keys(given, start, rows)
        by_key = np.argsort(keys, kind="stable")
        ours = _keys(own, start, rows)
        left, right = (np.searchsorted(keys[by_key], ours, side) for side in ("left", "right"))
        for index in np.flatnonzero((right > left) & ~found):
            alike = given[by_key[left[index] : right[index]]] == own[index]
            found[index] = (alike.sum(axis=1) >= threshold * own.shape[1]).any()
    return np.flatnonzero(found)


def band_rows(permutations: int, threshold: float) -> int:
    """The longest band that still lets so few pairs at the threshold through the net."""
    fitting = [
        rows
        for rows in range(1, permutations + 1)
        if (1 - threshold**rows) ** (permutations // rows) <= _MISSED
    ]
    return max(fitting, default=1)


def clusters(pairs: Numbers, count: int) -> Numbers:
    """For each of `count` rows its cluster's number: rows that pairs connect share one."""
    ones = np.ones(len(pairs), np.int8)
    graph = coo_array((ones, (pairs[:, 0], pairs[:, 1])), shape=(count, count))
    labels: Numbers = connected_components(graph, directed=False)[1].astype(np.int64)
    return labels


def firsts(labels: Numbers, order: Numbers) -> Numbers:
    """For each row the one of its cluster that comes first in `order`."""
    by_rank = labels[order]
    _, places = np.unique(by_rank, return_index=True)
    best = np.empty(labels.max(initial=-1) + 1, np.int64)
    best[by_rank[places]] = order[places]
    return best[labels]


def _keys(signatures: Signatures, start: int, rows: int) -> NDArray[np.uint64]:
    """A number for what a band of each signature holds, read in slices."""
    keys = np.empty(len(signatures), np.uint64)
    factors = np.random.default_rng(start).integers(1, 2**63, rows, np.uint64) | np.uint64(1)
    for at in range(0, len(signatures), _BATCH):
        part = signatures[at : at + _BATCH, start : start + rows].astype(np.uint64)
        mixed = (part + np.uint64(1)) * factors
        mixed ^= mixed >> np.uint64(29)
        keys[at : at + _BATCH] = (mixed * factors[::-1]).sum(axis=1, dtype=np.uint64)
    return keys


def _stars(keys: NDArray[Any], order: Numbers, chained: bool = False) -> Numbers:
    ranked = keys[order]
    # Stable: equal keys stay in the order of their rank.
    by_key = np.argsort(ranked, kind="stable")
    sorted_keys = ranked[by_key]
    is_new = np.ones(len(keys), bool)
    is_new[1:] = sorted_keys[1:] != sorted_keys[:-1]
    starts = np.maximum.accumulate(np.where(is_new, np.arange(len(keys)), 0))
    others = np.flatnonzero(~is_new)
    pairs = [np.stack([starts[others], others], axis=1)]
    if chained:
        inner = others[starts[others] != others - 1]
        pairs.append(np.stack([inner - 1, inner], axis=1))
    found: Numbers = order[by_key[np.concatenate(pairs)]].astype(np.int64)
    return found


def _confirmed(pairs: Numbers, signatures: Signatures, threshold: float) -> Numbers:
    """The pairs that are similar indeed."""
    least = threshold * signatures.shape[1]
    kept = [np.empty((0, 2), np.int64)]
    for at in range(0, len(pairs), _BATCH):
        part = pairs[at : at + _BATCH]
        equal = (signatures[part[:, 0]] == signatures[part[:, 1]]).sum(axis=1)
        kept.append(part[equal >= least])
    return np.concatenate(kept)
