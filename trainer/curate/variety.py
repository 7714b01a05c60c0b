"""One row becomes several examples that differ in what else is on offer."""

from __future__ import annotations

import itertools
import random
from collections.abc import Iterable, Iterator, Sequence
from typing import NamedTuple

import msgspec

from proxy.protocol.openai import Function
from trainer.curate.negatives import hard, name_words
from trainer.curate.spool import Part, Spool
from trainer.errors import DatasetError
from trainer.recipe.curation import VarietySettings
from trainer.rows import ABSTAIN, Row


class _Kinds(NamedTuple):
    """Indices of rows by what they teach."""

    calls: list[int]
    nothing_fits: list[int]
    chat: list[int]


def varied(
    train: Part, settings: VarietySettings, chance: random.Random, out: Spool, seed: int
) -> list[int]:
    """Write the examples to `out`; returns the order in which they are to be shown."""
    kinds = _kinds(train)
    pool = pooled(train)
    numbers = train.numbers
    for index in [index for _ in range(settings.copies) for index in kinds.calls]:
        beside = _with_distractors(train[index], pool, settings.distractors, chance)
        out.add(_shuffled(beside, chance), numbers[index])
    for index in chance.sample(kinds.calls, round(settings.unrelated * len(kinds.calls))):
        out.add(_unanswerable(train[index], pool, chance), numbers[index])
    for index in _drawn(kinds.nothing_fits, settings.copies, len(out), settings.negatives, chance):
        crowded = _crowded(train[index], pool, settings.negative_distractors, chance)
        out.add(_shuffled(crowded, chance), numbers[index])
    wanted = round(settings.hard * len(kinds.calls))
    for row, index in hard(train, kinds.calls, pool, settings.hard_kinds, wanted, seed):
        out.add(row, numbers[index])
    share = 1.0 if settings.chat is None else settings.chat
    for index in _drawn(kinds.chat, settings.copies, len(out), share, chance):
        out.add(train[index], numbers[index])
    shown = list(range(len(out)))
    chance.shuffle(shown)
    return shown


def _kinds(train: Part) -> _Kinds:
    kinds = _Kinds([], [], [])
    for index, row in enumerate(train):
        of = kinds.calls if row.calls else kinds.nothing_fits if row.functions else kinds.chat
        of.append(index)
    return kinds


def _drawn(
    given: Sequence[int], copies: int, others: int, share: float, chance: random.Random
) -> list[int]:
    """Of the rows, each `copies` times, as many as are this share of the examples, at most."""
    all_of_them = list(given) * copies
    most = round(others * share / (1 - share)) if share < 1 else len(all_of_them)
    return chance.sample(all_of_them, min(len(all_of_them), most))


def offered_more(
    tested: Sequence[Row], pool: Sequence[Function], chance: random.Random
) -> Iterator[Row]:
    """Every other row that offers one tool gets three more, so that choosing is tested too."""
    for number, row in enumerate(tested):
        if row.calls and len(row.functions) == 1 and number % 2:
            yield _shuffled(_beside_three(row, pool, chance), chance)
        else:
            yield row


def pooled(*of: Iterable[Row]) -> list[Function]:
    """Each tool that is offered, once."""
    rows = itertools.chain.from_iterable(of)
    return list({f.name: f for row in rows for f in row.functions}.values())


def _crowded(row: Row, pool: Sequence[Function], most: int, chance: random.Random) -> Row:
    """The row with at most `most` unrelated tools beside its own."""
    functions = list(row.functions)
    for _ in range(chance.randint(0, most) if most else 0):
        functions.append(unlike(functions, pool, chance))
    return msgspec.structs.replace(row, functions=functions)


def _beside_three(row: Row, pool: Sequence[Function], chance: random.Random) -> Row:
    """The row's tool beside three unrelated ones; fewer, where there are no more."""
    functions = list(row.functions)
    try:
        while len(functions) < 4:
            functions.append(unlike(functions, pool, chance))
    except DatasetError:
        # A small test side: few tools to choose among are better than none.
        pass
    return msgspec.structs.replace(row, functions=functions)


def _with_distractors(
    row: Row, pool: Sequence[Function], most: int | None, chance: random.Random
) -> Row:
    """The row with at most `most` tools beside the right one: its own, then unrelated ones."""
    if most is None:
        return row
    right = [f for f in row.functions if any(f.name == call.name for call in row.calls)]
    own = [f for f in row.functions if f not in right]
    if not right:
        return row
    wanted = chance.randint(0, most)
    others = chance.sample(own, min(len(own), max(wanted, min(most, 1))))
    while len(others) < wanted:
        others.append(unlike([*right, *others], pool, chance))
    return msgspec.structs.replace(row, functions=[*right, *others])


def _unanswerable(row: Row, pool: Sequence[Function], chance: random.Random) -> Row:
    others: list[Function] = []
    for _ in range(chance.randint(1, 4)):
        others.append(unlike([*row.functions, *others], pool, chance))
    return msgspec.structs.replace(row, functions=others, calls=[], accepted=[], text=ABSTAIN)


def unlike(taken: Sequence[Function], pool: Sequence[Function], chance: random.Random) -> Function:
    """A tool whose name shares no word with the taken ones', so that it cannot do the same."""
    words = {word for f in taken for word in name_words(f.name)}
    for _ in range(100):
        other = chance.choice(pool)
        if not words & name_words(other.name):
            return other
    raise DatasetError(
        "too few different tools to offer unrelated ones; add rows or lower `distractors`"
    )


def _shuffled(row: Row, chance: random.Random) -> Row:
    return msgspec.structs.replace(row, functions=chance.sample(row.functions, len(row.functions)))
