"""Our reading of BFCL's rules beside the installed checker's, over its data and their mutations.

`python -m tests.trainer.scorers.bfcl_rules` compares everything, and prints what differs.
"""

from __future__ import annotations

import copy
import json
import random
import sys
import types
from collections import Counter
from collections.abc import Callable, Iterator
from functools import cache
from pathlib import Path
from typing import Any, NamedTuple

from proxy.protocol.openai import Function, FunctionCall
from trainer.recipe.sources import BfclSettings
from trainer.scorers import bfcl
from trainer.sources.base import Skips
from trainer.sources.bfcl import BfclSource, _folder

PYTHON = (
    *("simple_python", "multiple", "parallel", "parallel_multiple"),
    *("live_simple", "live_multiple", "live_parallel", "live_parallel_multiple"),
)
Call = tuple[str, Any]


class Item(NamedTuple):
    """A question's tools, as BFCL writes them and as we do, and what is right."""

    id: str
    category: str
    described: list[dict]
    truth: list[dict]
    functions: list[Function]
    right: list[bfcl.Right]


class Difference(NamedTuple):
    id: str
    mutation: str
    ours: str
    theirs: str
    calls: list[Call]


# ---------------------------------------------------------------- the installed checker


@cache
def checker() -> types.ModuleType:
    """`ast_checker`, as installed. The table of models that it imports would import every vendor's
    library; of it, the checker only asks whether dots in names become underscores."""
    table = types.ModuleType("bfcl_eval.constants.model_config")
    table.MODEL_CONFIG_MAPPING = {"ours": types.SimpleNamespace(underscore_to_dot=True)}
    sys.modules.setdefault(table.__name__, table)
    from bfcl_eval.eval_checker.ast_eval import ast_checker

    return ast_checker


def theirs(item: Item, calls: list[Call]) -> str:
    from bfcl_eval.constants.enums import Language

    # An empty answer is stopped before the checker: its format is wrong.
    if not calls or not all(isinstance(given, dict) for _, given in calls):
        return "invalid"
    given = [{name: copy.deepcopy(arguments)} for name, arguments in calls]
    verdict = checker().ast_checker(
        item.described, given, item.truth, Language.PYTHON, item.category, "ours"
    )
    return "valid" if verdict["valid"] else "invalid"


def ours(item: Item, calls: list[Call]) -> str:
    given = [FunctionCall(name, json.dumps(arguments)) for name, arguments in calls]
    return "valid" if bfcl.fault(item.functions, given, item.right) is None else "invalid"


# ---------------------------------------------------------------- items


def items(category: str) -> Iterator[Item]:
    rows = {
        row.source: row for row in BfclSource(BfclSettings(categories=[category]), Skips()).rows()
    }
    questions = _read(_folder() / f"BFCL_v4_{category}.json")
    truths = {t["id"]: t for t in _read(_folder() / "possible_answer" / f"BFCL_v4_{category}.json")}
    for question in questions:
        row = rows.get(f"bfcl:{question['id']}")
        if row is None:
            continue
        truth = truths[question["id"]]["ground_truth"]
        right = [bfcl.Right(name, values) for t in truth for name, values in t.items()]
        functions = question["function"]
        yield Item(question["id"], category, functions, truth, row.functions, right)


def _read(path: Path) -> list[dict]:
    return [json.loads(line) for line in path.read_text().splitlines() if line.strip()]


def answer(item: Item, pick: Callable[[list], Any] = lambda values: values[0]) -> list[Call]:
    """Calls that are right: of each argument's values the one that `pick` says."""
    return [(right.tool.replace(".", "_"), _object(right.accepted, pick)) for right in item.right]


def _object(accepted: dict[str, list], pick: Callable[[list], Any]) -> dict[str, Any]:
    stated = {name: [v for v in values if v != ""] for name, values in accepted.items()}
    return {name: _plain(pick(values), pick) for name, values in stated.items() if values}


def _plain(value: Any, pick: Callable[[list], Any]) -> Any:
    if isinstance(value, dict) and all(isinstance(v, list) for v in value.values()):
        return _object(value, pick)
    if isinstance(value, list):
        return [_plain(one, pick) for one in value]
    return copy.deepcopy(value)


# ---------------------------------------------------------------- mutations


def _each(change: Callable[[Any, random.Random], Any]) -> Callable[..., list[Call]]:
    """A mutation of the first argument, if any, that `change` makes another value of."""

    def mutated(item: Item, chance: random.Random) -> list[Call]:
        calls = answer(item)
        places = [(n, key) for n, (_, given) in enumerate(calls) for key in given]
        chance.shuffle(places)
        for n, key in places:
            other = change(copy.deepcopy(calls[n][1][key]), chance)
            if type(other) is not type(calls[n][1][key]) or other != calls[n][1][key]:
                calls[n][1][key] = other
                break
        return calls

    return mutated


def _on(kind: type, make: Callable[[Any], Any]) -> Callable[[Any, random.Random], Any]:
    return lambda value, chance: make(value) if type(value) is kind else value


def _without_argument(item: Item, chance: random.Random) -> list[Call]:
    calls = answer(item)
    full = [given for _, given in calls if given]
    if full:
        given = chance.choice(full)
        del given[chance.choice(list(given))]
    return calls


def _without_optional(item: Item, chance: random.Random) -> list[Call]:
    return [
        (
            right.tool.replace(".", "_"),
            {
                name: value
                for name, value in given.items()
                if not bfcl.may_be_left_out(right.accepted[name])
            },
        )
        for right, (_, given) in zip(item.right, answer(item), strict=True)
    ]


def _extra_argument(item: Item, chance: random.Random) -> list[Call]:
    calls = answer(item)
    calls[-1][1]["surplus"] = 1
    return calls


def _nested(change: Callable[[dict], None]) -> Callable[[Any, random.Random], Any]:
    def made(value: Any, chance: random.Random) -> Any:
        if isinstance(value, dict) and value:
            change(value)
        elif isinstance(value, list) and value and isinstance(value[0], dict) and value[0]:
            change(value[0])
        return value

    return made


def _add_key(value: dict) -> None:
    value["surplus"] = 1


def _drop_key(value: dict) -> None:
    del value[next(iter(value))]


def _change_key(value: dict) -> None:
    value[next(iter(value))] = "quite another"


def _bigger(value: Any, chance: random.Random) -> Any:
    return value + 1 if type(value) in (int, float) else value


def _marked(text: str) -> str:
    return "".join(f"{c}-" if n % 3 == 0 else c for n, c in enumerate(text.upper())) + " ."


MUTATIONS: dict[str, Callable[[Item, random.Random], list[Call]]] = {
    "as it is": lambda item, chance: answer(item),
    "last of the right values": lambda item, chance: answer(item, lambda values: values[-1]),
    "any of the right values": lambda item, chance: answer(item, chance.choice),
    "optional left out": _without_optional,
    "one argument missing": _without_argument,
    "one argument more": _extra_argument,
    "number as text": _each(lambda v, c: str(v) if type(v) in (int, float) else v),
    "text as number": _each(_on(str, lambda v: 7)),
    "whole number as fraction": _each(_on(int, float)),
    "fraction as whole number": _each(_on(float, int)),
    "truth as number": _each(_on(bool, int)),
    "number as truth": _each(_on(int, bool)),
    "other number": _each(_bigger),
    "other truth": _each(_on(bool, lambda v: not v)),
    "text in other case and marks": _each(_on(str, _marked)),
    "other text": _each(_on(str, lambda v: v + "x")),
    "other quotation marks": _each(_on(str, lambda v: f"'{v}'")),
    "empty text": _each(lambda v, c: ""),
    "null": _each(lambda v, c: None),
    "list reversed": _each(_on(list, lambda v: v[::-1])),
    "list shorter": _each(_on(list, lambda v: v[:-1])),
    "list longer": _each(_on(list, lambda v: [*v, *v[-1:]])),
    "items as text": _each(_on(list, lambda v: [str(one) for one in v])),
    "items in other case": _each(
        _on(list, lambda v: [_marked(one) if isinstance(one, str) else one for one in v])
    ),
    "empty list": _each(lambda v, c: []),
    "value in a list": _each(lambda v, c: [v]),
    "value in an object": _each(lambda v, c: {"value": v}),
    "object with a key more": _each(_nested(_add_key)),
    "object with a key less": _each(_nested(_drop_key)),
    "object with another value": _each(_nested(_change_key)),
    "calls reversed": lambda item, chance: answer(item)[::-1],
    "one call missing": lambda item, chance: answer(item)[:-1],
    "one call twice": lambda item, chance: [*answer(item), answer(item)[-1]],
    "last call like the first": lambda item, chance: [*answer(item)[:-1], answer(item)[0]],
    "other tool": lambda item, chance: [("another_tool", given) for _, given in answer(item)],
    "name in capitals": lambda item, chance: [(n.upper(), given) for n, given in answer(item)],
    "no arguments": lambda item, chance: [(name, {}) for name, _ in answer(item)],
    "arguments in a list": lambda item, chance: [(name, [given]) for name, given in answer(item)],
    "no call": lambda item, chance: [],
}


def compare(item: Item, seed: int = 0) -> Iterator[tuple[str, str, Difference | None]]:
    """(mutation, their verdict, what differs) for every mutation of an item."""
    for name, mutate in MUTATIONS.items():
        calls = mutate(item, random.Random(f"{seed}{item.id}{name}"))
        found, expected = ours(item, calls), theirs(item, calls)
        same = found == expected
        yield name, expected, None if same else Difference(item.id, name, found, expected, calls)


def main() -> int:
    counts: Counter[tuple[str, str]] = Counter()
    different: list[Difference] = []
    for category in PYTHON:
        number = 0
        for item in items(category):
            number += 1
            for mutation, verdict, difference in compare(item):
                counts[mutation, verdict] += 1
                different += [difference] if difference else []
        print(f"{category}: {number} questions")
    for mutation in MUTATIONS:
        print(f"  {mutation}: {counts[mutation, 'valid']} / {counts[mutation, 'invalid']}")
    print(f"{sum(counts.values())} verdicts, {len(different)} differ")
    for difference in different[:40]:
        print(difference)
    return int(bool(different))


if __name__ == "__main__":
    sys.exit(main())
