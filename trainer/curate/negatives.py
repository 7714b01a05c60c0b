"""Hard negatives: rows that look as if a tool should be called, where none must be.

    similar_tool        the right tool is gone, tools like it are there
    missing_parameter   the user did not say what the tool must know: it is asked for
    unsupported_value   the user wants a variant that the schema's choices do not have

Each is made of a row that calls a tool, and only where no tool that is left fits: easy negatives
cost recall, and wrong ones, where a tool that is left would do, teach not to call.
"""

from __future__ import annotations

import json
import random
import re
from collections.abc import Iterator, Sequence
from typing import Any

import msgspec

from proxy.protocol.openai import Function, FunctionCall, Message
from trainer.rows import ABSTAIN, Label, Row

_PREPOSITIONS = "in|at|for|from|to|on|of|with|by|named|called|about|near|into|as|than|is|are"
_MOST_TOOLS = 4
_LEAST_WORDS = 3
_STOP = frozenset({"get", "the", "find", "for", "and", "with", "from", "set", "new"})


def hard(
    train: Sequence[Row],
    calls: Sequence[int],
    pool: Sequence[Function],
    kinds: Sequence[str],
    wanted: int,
    seed: int,
) -> Iterator[tuple[Row, int]]:
    """At most `wanted` hard negatives, and the index of the row that each was made of.

    They are drawn with a chance of their own: without them, all else stays as it is.
    """
    if not wanted:
        return
    chance = random.Random(f"hard:{seed}")
    maker = _Maker(pool, chance)
    turn = 0
    for index in chance.sample(calls, len(calls)):
        for kind in (*kinds[turn:], *kinds[:turn]):
            made = maker.make(kind, train[index])
            if made is not None:
                yield made, index
                wanted -= 1
                turn = (kinds.index(kind) + 1) % len(kinds)
                break
        if not wanted:
            return


def fits(function: Function, right: Function, call: FunctionCall) -> bool:
    """Whether a tool may do what `right` was called for; in doubt, yes.

    It may when one's name says all that the other's says, when both take the same parameters, or
    when it would take the call's arguments as they are.
    """
    ours, theirs = name_words(function.name), name_words(right.name)
    if ours <= theirs or theirs <= ours:
        return True
    schema, other = _schema(function), _schema(right)
    if schema.get("properties") == other.get("properties"):
        return True
    given = set(_arguments(call))
    taken, required = set(_properties(schema)), set(schema.get("required") or ())
    return bool(given) and required <= given <= taken


def name_words(name: str) -> set[str]:
    """The words of a tool's name that say something."""
    spaced = "".join(f" {c}" if c.isupper() else c for c in name.replace("_", " "))
    return {word for word in spaced.lower().split() if len(word) > 2 and word not in ("get", "the")}


class _Maker:
    def __init__(self, pool: Sequence[Function], chance: random.Random) -> None:
        self._pool = pool
        self._chance = chance
        self._by_word: dict[str, list[int]] = {}
        self._choices: dict[str, set[str]] = {}
        for index, function in enumerate(pool):
            for word in _content(function):
                self._by_word.setdefault(word, []).append(index)
            for name, schema in _properties(_schema(function)).items():
                self._choices.setdefault(name.lower(), set()).update(_strings(schema))

    def make(self, kind: str, row: Row) -> Row | None:
        """None where the row is not fit for one of this kind."""
        right = next((f for f in row.functions if f.name == row.calls[0].name), None)
        if right is None or len(row.calls) != 1:
            return None
        match kind:
            case "similar_tool":
                return self._similar_tool(row, right)
            case "missing_parameter":
                return self._missing_parameter(row, right)
            case _:
                return self._unsupported_value(row, right)

    def _similar_tool(self, row: Row, right: Function) -> Row | None:
        """The tools that share most words with the right one, without it and all that may do."""
        shared: dict[int, int] = {}
        for word in _content(right):
            # A word that every tenth tool has makes no two of them alike.
            found = self._by_word.get(word, ())
            for index in found if len(found) <= max(20, len(self._pool) // 10) else ():
                shared[index] = shared.get(index, 0) + 1
        nearest = sorted(shared, key=lambda index: (-shared[index], self._pool[index].name))
        own = [function for function in row.functions if function.name != right.name]
        candidates = [*own, *(self._pool[index] for index in nearest[:20])]
        unfit = [f for f in candidates if not fits(f, right, row.calls[0])]
        names = {f.name: f for f in unfit}
        if not any(self._pool[i].name in names for i in nearest[:20]):
            return None
        chosen = list(names.values())[: self._chance.randint(1, _MOST_TOOLS)]
        return _nothing(row, ABSTAIN, functions=self._chance.sample(chosen, len(chosen)))

    def _missing_parameter(self, row: Row, right: Function) -> Row | None:
        """The question without the one place where a required value is said."""
        arguments = _arguments(row.calls[0])
        required = [name for name in _schema(right).get("required") or () if name in arguments]
        for name in self._chance.sample(required, len(required)):
            asked = _without(row.question, arguments[name])
            if asked is not None:
                # `departure_city` is asked for as "departure city".
                said = re.sub(r"(?<=[a-z])(?=[A-Z])|_", " ", name).lower()
                return _nothing(row, f"To do that I need to know: {said}.", question=asked)
        return None

    def _unsupported_value(self, row: Row, right: Function) -> Row | None:
        """The question with a value that another tool's parameter of that name has."""
        properties = _properties(_schema(right))
        for name, value in _arguments(row.calls[0]).items():
            allowed = _strings(properties.get(name))
            others = sorted(self._choices.get(name.lower(), set()) - allowed)
            foreign = [one for one in others if not _is_like(one, allowed)]
            if value in allowed and foreign and _times(row.question, value) == 1:
                wanted = self._chance.choice(foreign)
                asked = wanted.join(_said(value).split(row.question))
                return _nothing(row, ABSTAIN, question=asked)
        return None


def _nothing(
    row: Row, text: str, functions: list[Function] | None = None, question: str | None = None
) -> Row:
    """The row, calling nothing and saying `text`."""
    messages = list(row.messages)
    if question is not None:
        last = max(n for n, message in enumerate(messages) if message.role == "user")
        messages[last] = Message(role="user", content=question)
    return msgspec.structs.replace(
        row,
        messages=messages,
        functions=row.functions if functions is None else functions,
        calls=[],
        accepted=[],
        text=text,
        label=Label(kind="synthetic"),
    )


def _without(question: str, value: Any) -> str | None:
    """The question without a value that it says once; None where that leaves no question."""
    if not isinstance(value, str | int | float) or isinstance(value, bool) or len(str(value)) < 2:
        return None
    if _times(question, value) != 1:
        return None
    pattern = rf"(?i)(?:\s+(?:{_PREPOSITIONS}))?\s*[\"']?{_said(value).pattern}[\"']?"
    rest = " ".join(re.sub(pattern, "", question, count=1).split())
    return rest if len(rest.split()) >= _LEAST_WORDS else None


def _said(value: Any) -> re.Pattern[str]:
    return re.compile(rf"(?i:(?<!\w){re.escape(str(value))}(?!\w))")


def _times(question: str, value: Any) -> int:
    return len(_said(value).findall(question))


def _is_like(value: str, allowed: set[str]) -> bool:
    """Whether a value may be another way to say an allowed one."""
    plain = value.lower()
    return any(plain in one.lower() or one.lower() in plain for one in allowed)


def _content(function: Function) -> set[str]:
    """The words of a tool's name and of the start of its description."""
    described = re.findall(r"[a-z]{4,}", (function.description or "")[:200].lower())
    return {*name_words(function.name), *described} - _STOP


def _schema(function: Function) -> dict[str, Any]:
    schema = msgspec.json.decode(function.schema)
    return schema if isinstance(schema, dict) else {}


def _properties(schema: dict[str, Any]) -> dict[str, Any]:
    properties = schema.get("properties")
    return properties if isinstance(properties, dict) else {}


def _strings(schema: Any) -> set[str]:
    """The texts that a schema's `enum` allows."""
    choices = schema.get("enum") if isinstance(schema, dict) else None
    return {c for c in choices if isinstance(c, str)} if isinstance(choices, list) else set()


def _arguments(call: FunctionCall) -> dict[str, Any]:
    try:
        given = json.loads(call.arguments)
    except ValueError:
        return {}
    return given if isinstance(given, dict) else {}
