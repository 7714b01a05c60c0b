"""Rows → a dataset: split so that nothing leaks, varied so that choosing is learnt, and named.

    train       what is trained on, in all its variations
    validation  rows of the training side, to watch progress
    seen        questions held out, about tools that training shows
    unseen      questions about tools that training never shows

Sides are chosen by hash of a tool's name or of the question, so that a row stays on its side when
rows are added or re-ordered.
"""

from __future__ import annotations

import hashlib
import random
from collections import Counter
from collections.abc import Iterable, Sequence
from pathlib import Path

import jsonschema_rs
import msgspec

from proxy.protocol.openai import Function, FunctionCall
from trainer import rows
from trainer.errors import DatasetError
from trainer.recipe import Recipe, SplitSettings, VarietySettings
from trainer.rows import ABSTAIN, Row

SIDES = ("train", "validation", "seen", "unseen")


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
        whole = hashlib.sha256()
        for side in SIDES:
            for row in getattr(self, side):
                whole.update(row.id.encode() + msgspec.json.encode(row.accepted))
        return f"sha256:{whole.hexdigest()}"


class _Manifest(msgspec.Struct):
    """What is read of the file that marks a whole dataset."""

    fingerprint: str
    dropped: dict[str, int]


def build(source: Iterable[Row], recipe: Recipe) -> Dataset:
    """The dataset of a recipe; the same rows and recipe give the same one."""
    dropped: Counter[str] = Counter()
    sound = [row for row in source if _is_sound(row, dropped)]
    train, seen, unseen = _split(sound, recipe.split, dropped)
    watched, train = train[: recipe.split.validation], train[recipe.split.validation :]
    chance = random.Random(recipe.seed)
    varied = _varied(train, recipe.variety, chance)
    dropped["too_many_negatives"] += len({r.source for r in train} - {r.source for r in varied})
    seen, unseen = _by_what_was_shown(seen, unseen, varied, dropped)
    return Dataset(
        train=varied,
        validation=_apart(watched, train, dropped),
        seen=_offered_more(_apart(seen, unseen, dropped), chance),
        unseen=_offered_more(unseen, chance),
        dropped=dict(dropped),
    )


def write(dataset: Dataset, directory: Path) -> None:
    """One file a side; the manifest last, so that it marks a whole dataset."""
    directory.mkdir(parents=True, exist_ok=True)
    for side in SIDES:
        rows.write(directory / f"{side}.jsonl", getattr(dataset, side))
    manifest = {
        "fingerprint": dataset.fingerprint,
        "rows": {side: len(getattr(dataset, side)) for side in SIDES},
        "dropped": dataset.dropped,
    }
    (directory / "manifest.json").write_bytes(msgspec.json.format(msgspec.json.encode(manifest)))


def read(directory: Path) -> Dataset:
    """The dataset in a directory; raises DatasetError when it is not what its manifest says."""
    try:
        written = (directory / "manifest.json").read_bytes()
        manifest = msgspec.json.decode(written, type=_Manifest)
    except (OSError, ValueError) as error:
        raise DatasetError(
            f"{directory} holds no dataset ({error}); run `headrace-trainer dataset`"
        ) from error
    sides = {side: list(rows.read(directory / f"{side}.jsonl")) for side in SIDES}
    dataset = Dataset(**sides, dropped=manifest.dropped)
    if dataset.fingerprint != manifest.fingerprint:
        raise DatasetError(f"{directory}: the rows are not those of its manifest; build it again")
    return dataset


# ------------------------------------------------------------------ which rows


def _is_sound(row: Row, dropped: Counter[str]) -> bool:
    reason = _fault(row)
    if reason is not None:
        dropped[reason] += 1
    return reason is None


def _fault(row: Row) -> str | None:
    """Why a row would teach something wrong; None for a good one."""
    if len(row.calls) > 1:
        return "several_calls"
    names = [function.name for function in row.functions]
    if len(set(names)) != len(names):
        return "tool_offered_twice"
    for call in row.calls:
        if call.name not in names:
            return "calls_a_tool_not_offered"
        if not _is_valid(row.functions[names.index(call.name)], call):
            return "label_breaks_the_schema"
    return None


def _is_valid(function: Function, call: FunctionCall) -> bool:
    """Whether the call satisfies the function's schema; no, where either cannot be read."""
    try:
        schema = msgspec.json.decode(function.schema)
        return jsonschema_rs.is_valid(schema, msgspec.json.decode(call.arguments))
    except (ValueError, jsonschema_rs.ValidationError):
        return False


# ------------------------------------------------------------------ which side


def _share(text: str) -> float:
    """A number in [0, 1) that a text always gets."""
    return int(hashlib.sha256(text.encode()).hexdigest()[:8], 16) / 2**32


def _split(
    sound: Sequence[Row], settings: SplitSettings, dropped: Counter[str]
) -> tuple[list[Row], list[Row], list[Row]]:
    sides: dict[str, list[Row]] = {"train": [], "seen": [], "unseen": []}
    for row in sorted(sound, key=lambda row: row.id):
        side = _side(row, settings)
        kept = _without(row, settings, keep_new=side == "unseen")
        if kept is None:
            dropped["no_tool_left"] += 1
            continue
        sides[side].append(kept)
    clean = _apart(sides["train"], [*sides["seen"], *sides["unseen"]], dropped)
    return clean, sides["seen"], sides["unseen"]


def _by_what_was_shown(
    seen: Sequence[Row], unseen: Sequence[Row], train: Sequence[Row], dropped: Counter[str]
) -> tuple[list[Row], list[Row]]:
    """The held-out rows sorted by what training really shows of the tool that they call.

    A tool that training only shows as one not to call belongs to neither side.
    """
    called = {call.name for row in train for call in row.calls}
    shown = {function.name for row in train for function in row.functions}
    known = [row for row in seen if all(call.name in called for call in row.calls)]
    new = [row for row in seen if any(call.name not in shown for call in row.calls)]
    dropped["tool_only_a_distractor"] += len(seen) - len(known) - len(new)
    return known, [*unseen, *new]


def _apart(rows: Sequence[Row], others: Sequence[Row], dropped: Counter[str]) -> list[Row]:
    """The rows whose question no other row asks."""
    taken = {row.group for row in others}
    apart = [row for row in rows if row.group not in taken]
    dropped["question_on_two_sides"] += len(rows) - len(apart)
    return apart


def _is_new(name: str, settings: SplitSettings) -> bool:
    return _share("tool:" + name) < settings.unseen_tools


def _side(row: Row, settings: SplitSettings) -> str:
    names = [call.name for call in row.calls] or [function.name for function in row.functions]
    held_out = _share("question:" + row.group) < settings.seen
    if row.calls:
        return "unseen" if _is_new(names[0], settings) else "seen" if held_out else "train"
    if _share("question:" + row.group) >= settings.seen + settings.unseen_tools:
        return "train"
    return "unseen" if any(_is_new(name, settings) for name in names) else "seen"


def _without(row: Row, settings: SplitSettings, keep_new: bool) -> Row | None:
    """The row without new tools; on the unseen side, where nothing fits, without the known ones."""
    if keep_new and row.calls:
        return row
    functions = [f for f in row.functions if _is_new(f.name, settings) == keep_new]
    return msgspec.structs.replace(row, functions=functions) if functions else None


# ------------------------------------------------------------------ what else is on offer


def _varied(train: Sequence[Row], settings: VarietySettings, chance: random.Random) -> list[Row]:
    pool = _pool(train)
    called = [row for row in train if row.calls]
    examples = [
        _shuffled(_with_distractors(row, pool, settings.distractors, chance), chance)
        for _ in range(settings.copies)
        for row in called
    ]
    unrelated = chance.sample(called, round(settings.unrelated * len(called)))
    examples += [_unanswerable(row, pool, chance) for row in unrelated]
    examples += _negatives(train, settings, len(examples), chance)
    chance.shuffle(examples)
    return examples


def _negatives(
    train: Sequence[Row], settings: VarietySettings, others: int, chance: random.Random
) -> list[Row]:
    """As many copies of the rows that call nothing as the recipe's share allows."""
    given = [row for row in train if not row.calls] * settings.copies
    most = round(others * settings.negatives / (1 - settings.negatives))
    pool = _pool(train)
    return [
        _shuffled(_crowded(row, pool, settings.negative_distractors, chance), chance)
        for row in chance.sample(given, min(len(given), most))
    ]


def _crowded(row: Row, pool: Sequence[Function], most: int, chance: random.Random) -> Row:
    """The row with at most `most` unrelated tools beside its own."""
    functions = list(row.functions)
    for _ in range(chance.randint(0, most) if most else 0):
        functions.append(_unlike(functions, pool, chance))
    return msgspec.structs.replace(row, functions=functions)


def _offered_more(tested: Sequence[Row], chance: random.Random) -> list[Row]:
    """Every other row that offers one tool gets three more, so that choosing is tested too."""
    pool = _pool(tested)
    return [
        _shuffled(_with_distractors(row, pool, 3, chance, exactly=True), chance)
        if row.calls and len(row.functions) == 1 and number % 2
        else row
        for number, row in enumerate(tested)
    ]


def _pool(of: Sequence[Row]) -> list[Function]:
    return list({f.name: f for row in of for f in row.functions}.values())


def _with_distractors(
    row: Row, pool: Sequence[Function], most: int, chance: random.Random, exactly: bool = False
) -> Row:
    """The row with at most `most` tools beside the right one: its own, then unrelated ones."""
    right = [f for f in row.functions if any(f.name == call.name for call in row.calls)]
    own = [f for f in row.functions if f not in right]
    if not right:
        return row
    wanted = most if exactly else chance.randint(0, most)
    others = chance.sample(own, min(len(own), max(wanted, min(most, 1))))
    while len(others) < wanted:
        others.append(_unlike([*right, *others], pool, chance))
    return msgspec.structs.replace(row, functions=[*right, *others])


def _unanswerable(row: Row, pool: Sequence[Function], chance: random.Random) -> Row:
    others: list[Function] = []
    for _ in range(chance.randint(1, 4)):
        others.append(_unlike([*row.functions, *others], pool, chance))
    return msgspec.structs.replace(row, functions=others, calls=[], accepted=[], text=ABSTAIN)


def _unlike(taken: Sequence[Function], pool: Sequence[Function], chance: random.Random) -> Function:
    """A tool whose name shares no word with the taken ones', so that it cannot do the same."""
    words = {word for f in taken for word in _words(f.name)}
    for _ in range(100):
        other = chance.choice(pool)
        if not words & _words(other.name):
            return other
    raise DatasetError(
        "too few different tools to offer unrelated ones; add rows or lower `distractors`"
    )


def _words(name: str) -> set[str]:
    spaced = "".join(f" {c}" if c.isupper() else c for c in name.replace("_", " "))
    return {word for word in spaced.lower().split() if len(word) > 2 and word not in ("get", "the")}


def _shuffled(row: Row, chance: random.Random) -> Row:
    return msgspec.structs.replace(row, functions=chance.sample(row.functions, len(row.functions)))
