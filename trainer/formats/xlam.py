"""xLAM: `{"query": …, "tools": "[…]", "answers": "[…]"}`, one question and its calls.

Tools have flat parameters in Python's words, `{"city": {"type": "str, optional", "default": …}}`;
they become JSON Schema and, where they can say it all, flat parameters again. No answers means that
nothing must be called.
Source: Salesforce, xlam-function-calling-60k, data card.
"""

from __future__ import annotations

from typing import Any, TypeAlias

import msgspec

from proxy.protocol.formats.base import dumps
from proxy.protocol.openai import Function, FunctionCall, Message
from trainer.formats.base import call_text, decoded, encoded, refuse, row
from trainer.rows import ABSTAIN, Row

Schema: TypeAlias = dict[str, Any]
_TYPES = {
    "str": "string",
    "int": "integer",
    "float": "number",
    "bool": "boolean",
    "list": "array",
    "dict": "object",
}
_WORDS = {kind: word for word, kind in _TYPES.items()}
_OPTIONAL = ", optional"
_UNKNOWN = "xLAM: "
"""Before a type that JSON Schema has no word for, in `$comment`."""


class _Call(msgspec.Struct, frozen=True):
    name: str
    arguments: msgspec.Raw = msgspec.Raw(b"{}")


class _Tool(msgspec.Struct, frozen=True):
    name: str
    description: str = ""
    parameters: Schema | None = None


class _Line(msgspec.Struct, frozen=True):
    query: str
    tools: str | list[_Tool]
    answers: str | list[_Call]


def read(line: bytes) -> Row:
    given = decoded(line, _Line)
    tools = decoded(given.tools, list[_Tool]) if isinstance(given.tools, str) else given.tools
    text = given.answers
    calls = decoded(text, list[_Call]) if isinstance(text, str) else text
    return row(
        [Message(role="user", content=given.query)],
        [Function(tool.name, tool.description, _schema(tool.parameters)) for tool in tools],
        [FunctionCall(call.name, bytes(call.arguments).decode()) for call in calls],
        text="" if calls else ABSTAIN,
    )


def write(row: Row) -> bytes:
    talked = len(row.messages) != 1 or (
        row.text not in ("", ABSTAIN) if not row.calls else row.text
    )
    refuse(row, conversations=talked, weights=row.unlearnt)
    tools = [
        {"name": f.name, "description": f.description or "", "parameters": _flat(f)}
        for f in row.functions
    ]
    answers = f"[{', '.join(map(call_text, row.calls))}]"
    return encoded({"query": row.messages[0].text, "tools": dumps(tools), "answers": answers})


# ---------------------------------------------------------------- parameters


def _schema(flat: Schema | None) -> msgspec.Raw:
    if flat is None or flat.get("type") == "object":
        return msgspec.Raw(msgspec.json.encode(flat) if flat else b"")
    named = {name: _typed(one) for name, one in flat.items()}
    required = [name for name, one in flat.items() if not _is_optional(one)]
    schema = {"type": "object", "properties": named, "required": required}
    return msgspec.Raw(dumps(schema).encode())


def _is_optional(given: object) -> bool:
    return isinstance(given, dict) and str(given.get("type", "")).endswith(_OPTIONAL)


def _typed(given: object) -> Schema:
    """`{"type": "List[int], optional", …}` with JSON Schema's type; other keys as they are."""
    if not isinstance(given, dict):
        return {}
    word = str(given.get("type", "")).removesuffix(_OPTIONAL)
    return _kind(word) | {key: value for key, value in given.items() if key != "type"}


def _kind(word: str) -> Schema:
    if word in _TYPES:
        return {"type": _TYPES[word]}
    if word.startswith("List[") and word[5:-1] in _TYPES:
        return {"type": "array", "items": {"type": _TYPES[word[5:-1]]}}
    return {"$comment": _UNKNOWN + word} if word else {}


def _flat(function: Function) -> Schema | None:
    """The flat parameters of a schema; the schema itself where they cannot say it."""
    if not function.parameters:
        return None
    schema = decoded(bytes(function.parameters), Schema)
    if set(schema) != {"type", "properties", "required"}:
        return schema
    required = schema["required"]
    flat = {name: _worded(one, name in required) for name, one in schema["properties"].items()}
    said = bytes(_schema(flat))
    return flat if decoded(said, Schema) == schema else schema


def _worded(given: Schema, is_required: bool) -> Schema:
    word, used = _word(given)
    kind = {"type": word + ("" if is_required else _OPTIONAL)} if word or not is_required else {}
    return kind | {key: value for key, value in given.items() if key not in used}


def _word(given: Schema) -> tuple[str, tuple[str, ...]]:
    """Python's word for a schema's type, and which keys say it."""
    match given:
        case {"type": "array", "items": {"type": str(inner), **more}} if not more:
            return f"List[{_WORDS.get(inner, inner)}]", ("type", "items")
        case {"type": str(kind)}:
            return _WORDS.get(kind, kind), ("type",)
        case {"$comment": str(comment)} if comment.startswith(_UNKNOWN):
            return comment.removeprefix(_UNKNOWN), ("$comment",)
        case _:
            return "", ()
