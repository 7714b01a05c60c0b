"""Leaks: what training must not show, because an evaluation asks it.

Compared with every registered evaluation set, and with the dataset's own held-out rows: runs of 13
words, near duplicates (in `build.py`, by signature), and the same tool with the same arguments.
Only what is asked and answered is compared, not schemas: those are the same by design.
"""

from __future__ import annotations

import struct
from collections.abc import Iterable
from typing import ClassVar

import msgspec
import numpy as np
from numpy.typing import NDArray

from trainer.canonical import canonical
from trainer.curate import words
from trainer.curate.filter import Drop
from trainer.recipe.curation import DecontaminateSettings
from trainer.rows import Row

_EMPTY = ("", "{}", "null")
_LEAST = 4
"""Words. Questions that are shorter still ("yes please") are everybody's."""


class Known(msgspec.Struct, frozen=True):
    """Hashes of what evaluations ask and answer; each a sorted run of 8-byte numbers."""

    grams: bytes
    calls: bytes


class Evaluations:
    """The filter that compares a row with registered evaluation sets."""

    version: ClassVar[int] = 1

    def __init__(self, settings: DecontaminateSettings, known: Known) -> None:
        self._settings = settings
        self._grams = np.frombuffer(known.grams, np.uint64)
        self._calls = np.frombuffer(known.calls, np.uint64)

    def __call__(self, row: Row) -> Row | Drop:
        if has_any(self._grams, said(row, self._settings.words)):
            return Drop("asked_in_an_evaluation")
        if self._settings.calls and has_any(self._calls, called(row)):
            return Drop("called_in_an_evaluation")
        return row


def known(rows: Iterable[Row], settings: DecontaminateSettings) -> Known:
    """What these rows ask and answer."""
    grams: set[int] = set()
    calls: set[int] = set()
    for row in rows:
        grams |= said(row, settings.words)
        calls |= called(row)
    return Known(_packed(grams), _packed(calls))


def said(row: Row, length: int) -> set[int]:
    """Hashes of the runs of words of question and answer; of a shorter question as a whole."""
    asked = words.words(row.question)
    whole = {words.digest(" ".join(asked))} if _LEAST <= len(asked) < length else set()
    return whole | words.grams(row.question, length) | words.grams(row.text, length)


def called(row: Row) -> set[int]:
    """Hashes of the calls that have arguments; one without says too little to be a leak."""
    pairs = ((call.name, canonical(call.arguments)) for call in row.calls)
    return {words.digest(f"{name} {given}") for name, given in pairs if given not in _EMPTY}


def has_any(sorted_hashes: NDArray[np.uint64], hashes: set[int]) -> bool:
    """Whether one of the hashes is among the sorted ones."""
    if not len(sorted_hashes) or not hashes:
        return False
    wanted = np.fromiter(hashes, np.uint64, len(hashes))
    places = np.searchsorted(sorted_hashes, wanted)
    places[places == len(sorted_hashes)] = 0
    return bool((sorted_hashes[places] == wanted).any())


def is_clean(asked: NDArray[np.uint64], row: Row, length: int) -> bool:
    """Whether the row's question shares no run of words with `questions`."""
    return not has_any(asked, words.grams(row.question, length))


def questions(rows: Iterable[Row], length: int) -> NDArray[np.uint64]:
    """Hashes of the questions' runs of words, sorted."""
    grams: set[int] = set()
    for row in rows:
        grams |= words.grams(row.question, length)
    return np.sort(np.fromiter(grams, np.uint64, len(grams)))


def _packed(hashes: set[int]) -> bytes:
    return struct.pack(f"={len(hashes)}Q", *sorted(hashes))
