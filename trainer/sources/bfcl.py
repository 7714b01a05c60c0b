"""The Berkeley Function Calling Leaderboard's single-turn data, from the installed `bfcl-eval`.

The package is Apache-2.0; its data stay in it and are read where they lie. Questions come with
tools and, in a twin file, with the values that are right; the irrelevance categories come without:
there, nothing must be called.
Source: bfcl-eval, `data/BFCL_v4_<category>.json` and `data/possible_answer/`.
"""

from __future__ import annotations

import fnmatch
import importlib.util
import itertools
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any, TypeAlias

import msgspec

from proxy.protocol.formats.base import dumps
from proxy.protocol.openai import Function, FunctionCall, Message
from trainer.errors import SourceError
from trainer.recipe.sources import BfclSettings
from trainer.rows import ABSTAIN, Row
from trainer.sources.base import Skips

Json: TypeAlias = Any
"""A decoded JSON value."""
Schema: TypeAlias = dict[str, Json]
Accepted: TypeAlias = dict[str, list[Json]]
"""Argument → the values that are right."""

_TYPES = {"dict": "object", "float": "number", "tuple": "array", "any": None, "": None}
_KEPT = ("description", "enum", "default")


class _Question(msgspec.Struct):
    id: str
    question: list[list[Message]]
    function: list[Schema]


class _Truth(msgspec.Struct):
    id: str
    ground_truth: list[dict[str, Accepted]]


class BfclSource:
    """Questions of the settings' categories and tools."""

    def __init__(self, settings: BfclSettings, skips: Skips) -> None:
        self._settings = settings
        self._skips = skips

    def rows(self) -> Iterator[Row]:
        return itertools.chain.from_iterable(map(self._category, self._settings.categories))

    def _category(self, category: str) -> Iterator[Row]:
        folder = _folder()
        truths = _truths(folder / "possible_answer" / f"BFCL_v4_{category}.json")
        for question in _lines(folder / f"BFCL_v4_{category}.json", _Question):
            if self._wanted([str(function["name"]) for function in question.function]):
                row = _row(question, truths.get(question.id))
                if row is None:
                    self._skips.add(f"bfcl:{question.id}", "several_turns")
                else:
                    yield row

    def _wanted(self, names: Sequence[str]) -> bool:
        settings = self._settings
        return any(_matches(n, settings.tools) for n in names) and not any(
            _matches(n, settings.without) for n in names
        )


def _matches(name: str, globs: Sequence[str]) -> bool:
    return any(fnmatch.fnmatchcase(name, glob) for glob in globs)


def _folder() -> Path:
    spec = importlib.util.find_spec("bfcl_eval")
    if spec is None or spec.origin is None:
        raise SourceError("the bfcl source needs the package bfcl-eval; run `make train-setup`")
    return Path(spec.origin).parent / "data"


def _lines(path: Path, kind: type[msgspec.Struct]) -> list:  # type: ignore[type-arg]
    try:
        return [
            msgspec.json.decode(line, type=kind)
            for line in path.read_bytes().splitlines()
            if line.strip()
        ]
    except (OSError, msgspec.MsgspecError, UnicodeDecodeError) as error:
        raise SourceError(f"{path}: {error}") from error


def _truths(path: Path) -> dict[str, list[dict[str, Accepted]]]:
    return {t.id: t.ground_truth for t in _lines(path, _Truth)} if path.exists() else {}


def _row(question: _Question, truth: list[dict[str, Accepted]] | None) -> Row | None:
    """None for questions with several turns, which are not single-turn rows."""
    if len(question.question) != 1:
        return None
    messages = question.question[0]
    functions = [_function(f) for f in question.function]
    said = " ".join(messages[-1].text.lower().split())
    calls = [
        _call(name, accepted, functions, said) for t in truth or () for name, accepted in t.items()
    ]
    return Row(
        messages=messages,
        functions=functions,
        calls=calls,
        text="" if calls else ABSTAIN,
        accepted=[_encoded(accepted) for t in truth or () for accepted in t.values()],
        source=f"bfcl:{question.id}",
        license="Apache-2.0",
        group=said,
    )


def _encoded(accepted: Accepted) -> dict[str, msgspec.Raw]:
    return {name: msgspec.Raw(msgspec.json.encode(values)) for name, values in accepted.items()}


# ------------------------------------------------------------------ schemas


def _function(given: Schema) -> Function:
    """BFCL's function as OpenAI has it; dots in names are not allowed there, hence underscores."""
    schema = msgspec.json.encode(_schema(given.get("parameters")))
    return Function(
        name=_name(str(given["name"])),
        description=str(given.get("description", "")),
        parameters=msgspec.Raw(schema),
    )


def _name(name: str) -> str:
    return name.replace(".", "_")


def _schema(given: Json) -> Schema:
    """BFCL's Python-flavoured types as JSON Schema; keywords beyond the usual ones are dropped."""
    if not isinstance(given, dict):
        return {}
    schema: Schema = {}
    kind = _TYPES.get(str(given.get("type", "")), str(given.get("type", "")))
    if kind:
        schema["type"] = kind
    schema |= {key: given[key] for key in _KEPT if given.get(key) is not None}
    if isinstance(properties := given.get("properties"), dict):
        schema["properties"] = {key: _schema(inner) for key, inner in properties.items()}
        schema["required"] = [k for k in _strings(given.get("required")) if k in properties]
    if kind == "array" and isinstance(given.get("items"), dict):
        schema["items"] = _schema(given["items"])
    return schema


def _strings(given: Json) -> list[str]:
    return [str(item) for item in given] if isinstance(given, list) else []


# ------------------------------------------------------------------ answers


def _call(name: str, accepted: Accepted, functions: Sequence[Function], said: str) -> FunctionCall:
    """The call to learn: of each argument's right values the first, in the schema's order."""
    function = next((f for f in functions if f.name == _name(name)), None)
    schema = msgspec.json.decode(function.parameters) if function is not None else {}
    chosen = _arguments(
        accepted, schema.get("properties") or {}, schema.get("required") or [], said
    )
    return FunctionCall(_name(name), dumps(chosen))


def _arguments(
    accepted: Accepted, properties: Schema, required: Sequence[str], said: str
) -> Schema:
    order = [
        *(k for k in properties if k in accepted),
        *(k for k in accepted if k not in properties),
    ]
    return {
        key: _value(accepted[key], properties.get(key), said)
        for key in order
        if key in required or _mentioned(accepted[key], said)
    }


def _mentioned(values: list[Json], said: str) -> bool:
    """Whether an optional argument is worth stating: it may not be left out, or was said."""
    if "" not in values:
        return True
    stated = [v for v in values if v not in ("", None) and not isinstance(v, bool)]
    return any(str(v).lower() in said for v in stated)


def _value(values: list[Json], schema: Json, said: str) -> Json:
    first = next((v for v in values if v not in ("", None)), values[0] if values else None)
    if isinstance(first, dict) and all(isinstance(v, list) for v in first.values()):
        inner = schema if isinstance(schema, dict) else {}
        return _nested(first, inner, said)
    if isinstance(first, list) and first and all(isinstance(v, dict) for v in first):
        items = schema.get("items") if isinstance(schema, dict) else None
        inner = items if isinstance(items, dict) else {}
        return [_nested(v, inner, said) if isinstance(v, dict) else v for v in first]
    return first


def _nested(given: Schema, schema: Schema, said: str) -> Schema:
    accepted = {k: v if isinstance(v, list) else [v] for k, v in given.items()}
    properties = schema.get("properties")
    return _arguments(
        accepted,
        properties if isinstance(properties, dict) else {},
        _strings(schema.get("required")),
        said,
    )
