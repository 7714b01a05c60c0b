"""JSON Schema to EBNF: text that is JSON, fits the schema, and is spaced as `json.dumps` spaces it.

Source: JSON Schema 2020-12; the dialect of EBNF is xgrammar's. xgrammar can translate a schema
itself, but then lets white space run free inside the JSON: a small model fills its answer with it,
and adapters were trained on `json.dumps` with its usual ", " and ": ".

Schemas come from clients, so everything here is bounded. What the grammar cannot express it drops
and reports ("loosened"): verification finds what then goes wrong. It narrows silently where every
answer stays valid: properties come in the schema's order, and only those that the schema names.
"""

from __future__ import annotations

import functools
import json
import re
from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import TypeAlias

import msgspec

Json: TypeAlias = "dict[str, Json] | list[Json] | str | int | float | bool | None"
Object: TypeAlias = "dict[str, Json]"

MAX_BYTES = 65536
MAX_DEPTH = 24
MAX_RULES = 2000
"""Chosen: 1000 optional properties, 3000 rules, compile in 0.5 s, 400 in 0.1 s."""
MAX_REPEAT = 64
"""Longest bounded string or array. xgrammar tracks every count that is still possible: at 256 a
step takes 0.1 s longer, at 64 nothing that could be measured."""
MAX_RANGE = 100
"""Integers of a closed range are listed up to this number."""

ANYTHING = r"""
any ::= object | array | string | number | "true" | "false" | "null"
object ::= "{" (string ": " any (", " string ": " any)*)? "}"
array ::= "[" (any (", " any)*)? "]"
string ::= "\"" letters "\""
letters ::= [^"\\\x00-\x1f]* (escape [^"\\\x00-\x1f]*)*
char ::= [^"\\\x00-\x1f] | escape
escape ::= "\\" (["\\/bfnrt] | "u" [0-9a-fA-F]{4})
integer ::= "-"? natural
natural ::= "0" | [1-9] [0-9]{0,15}
positive ::= [1-9] [0-9]{0,15}
number ::= integer fraction
fraction ::= ("." [0-9]{1,16})? ([eE] [+-]? [0-9]{1,2})?
"""
"""Any JSON value; rules that the others are built of. The digits are bounded: a small model repeats
them without end. `letters` says the same as `char*`, but xgrammar has a quick way for a class that
is repeated: 0.01 ms a token instead of 20 (docs/LOG.md)."""

_BY_TYPE: Mapping[str, frozenset[str]] = {
    "object": frozenset({"properties", "required", "additionalProperties"}),
    "array": frozenset({"items", "minItems", "maxItems"}),
    "string": frozenset({"minLength", "maxLength"}),
    "integer": frozenset({"minimum", "maximum"}),
    "number": frozenset({"minimum"}),
    "boolean": frozenset(),
    "null": frozenset(),
}
"""The keywords that are understood, by type."""
_ANNOTATIONS = """title description default examples example deprecated readOnly writeOnly format
type strict nullable $schema $id $comment $defs definitions contentMediaType contentEncoding"""
_SILENT = frozenset(_ANNOTATIONS.split())
"""Keywords that assert nothing (`format` is an annotation unless a validator opts in)."""


class Body(msgspec.Struct, frozen=True):
    """A grammar of JSON."""

    text: str
    """Rules in EBNF; `json` is the whole value, and none is called `root`."""
    loosened: tuple[str, ...] = ()
    """Paths of what the schema demands and the grammar does not, such as `$.city.pattern`."""


class TooComplex(ValueError):
    """The schema passes one of the bounds."""


@functools.lru_cache(maxsize=256)
def from_schema(schema: bytes) -> Body:
    """The grammar of a schema, whatever the schema: at worst any JSON object, and it says so."""
    try:
        return _Translation(_decoded(schema)).body()
    except (TooComplex, RecursionError) as error:
        return Body(f"json ::= object\n{ANYTHING}", (f"$: {error}",))


def _decoded(schema: bytes) -> Json:
    if len(schema) > MAX_BYTES:
        raise TooComplex(f"schema of {len(schema)} bytes, at most {MAX_BYTES} are read")
    try:
        decoded: Json = msgspec.json.decode(schema)
    except msgspec.DecodeError as error:
        raise TooComplex(f"not JSON: {error}") from error
    return decoded


def quoted(text: str) -> str:
    """The text as terminals of the grammar.

    xgrammar writes a letter such as é as \\xe9, and reads \\xe9a as one letter of three digits:
    whatever is not ASCII stands in a terminal of its own, with no digit after it.
    """
    pieces = [piece for piece in re.split("([^ -~])", text) if piece]
    return " ".join(f'"{_escaped(piece)}"' for piece in pieces) or '""'


def _escaped(text: str) -> str:
    return "".join(_ESCAPES.get(c, c) for c in text)


_ESCAPES = {chr(code): f"\\x{code:02x}" for code in [*range(32), 127]} | {'"': '\\"', "\\": "\\\\"}


class _Translation:
    """One schema on its way to rules. Methods that end in a rule's body return an expression."""

    def __init__(self, document: Json) -> None:
        self._document = document
        self._rules: list[str] = []
        self._loosened: list[str] = []
        self._references: dict[str, str] = {}
        """Pointer → name of its rule; of an empty name while the rule is being made."""

    def body(self) -> Body:
        root = self._expression(self._document, "$", 0)
        rules = "\n".join([f"json ::= {root}", *self._rules, ANYTHING])
        return Body(rules, tuple(self._loosened))

    def _rule(self, expression: str) -> str:
        if len(self._rules) >= MAX_RULES:
            raise TooComplex(f"more than {MAX_RULES} rules")
        name = f"r{len(self._rules)}"
        self._rules.append(f"{name} ::= {expression}")
        return name

    def _loosen(self, path: str, anything: str = "any") -> str:
        self._loosened.append(path)
        return anything

    def _expression(self, schema: Json, path: str, depth: int) -> str:
        if depth > MAX_DEPTH:
            raise TooComplex(f"deeper than {MAX_DEPTH} at {path}")
        if schema is True:
            return "any"
        if not isinstance(schema, dict):
            return self._loosen(path)
        return self._of_object(schema, path, depth)

    def _of_object(self, schema: Object, path: str, depth: int) -> str:
        """Dispatch on the one keyword that decides; its siblings are dropped and reported."""
        for keyword, translate in self._deciding().items():
            if keyword in schema:
                self._report_siblings(schema, {keyword}, path)
                return translate(schema[keyword], path, depth)
        types = _types(schema)
        self._report_siblings(schema, _keywords(types), path)
        return _union(self._of_type(name, schema, path, depth) for name in types)

    def _deciding(self) -> dict[str, Callable[[Json, str, int], str]]:
        return {
            "$ref": self._reference,
            "const": lambda value, path, _: self._literals([value], path),
            "enum": lambda values, path, _: self._literals(values, path),
            "anyOf": self._alternatives,
            "oneOf": self._alternatives,
            "allOf": self._all_of,
        }

    def _report_siblings(self, schema: Object, understood: Iterable[str], path: str) -> None:
        for keyword in schema.keys() - _SILENT - set(understood):
            if not keyword.startswith("x-"):
                self._loosen(f"{path}.{keyword}")

    def _reference(self, pointer: Json, path: str, depth: int) -> str:
        if not isinstance(pointer, str) or not pointer.startswith("#"):
            return self._loosen(f"{path}.$ref")
        if pointer not in self._references:
            self._references[pointer] = ""
            target = self._expression(self._pointed(pointer), path, depth + 1)
            self._references[pointer] = self._rule(target)
        # An empty name: the schema contains itself, and so would the rule.
        return self._references[pointer] or self._loosen(f"{path}.$ref")

    def _pointed(self, pointer: str) -> Json:
        """What a JSON pointer (RFC 6901) into the schema points at; None when at nothing."""
        found = self._document
        for part in pointer.split("/")[1:]:
            key = part.replace("~1", "/").replace("~0", "~")
            found = found.get(key) if isinstance(found, dict) else None
        return found

    def _literals(self, values: Json, path: str) -> str:
        if not isinstance(values, list) or not values:
            return self._loosen(path)
        try:
            texts = [json.dumps(value, ensure_ascii=False, allow_nan=False) for value in values]
        except ValueError:
            return self._loosen(path)
        return _union(quoted(text) for text in texts)

    def _alternatives(self, options: Json, path: str, depth: int) -> str:
        if not isinstance(options, list) or not options:
            return self._loosen(path)
        return _union(self._expression(option, path, depth + 1) for option in options)

    def _all_of(self, parts: Json, path: str, depth: int) -> str:
        # One part is how generators wrap a $ref; an intersection of several has no grammar.
        if isinstance(parts, list) and len(parts) == 1:
            return self._expression(parts[0], path, depth + 1)
        return self._loosen(f"{path}.allOf")

    def _of_type(self, name: str, schema: Object, path: str, depth: int) -> str:
        match name:
            case "object":
                return self._rule(self._object(schema, path, depth))
            case "array":
                return self._rule(self._array(schema, path, depth))
            case "string":
                return self._string(schema, path)
            case "integer":
                return self._integer(schema, path)
            case "number":
                return self._number(schema, path)
            case "boolean":
                return '"true" | "false"'
            case "null":
                return '"null"'
            case _:
                return self._loosen(f"{path}.type")

    def _object(self, schema: Object, path: str, depth: int) -> str:
        properties, required = _properties(schema)
        if not properties:
            return self._map(schema.get("additionalProperties", True), path, depth)
        pairs = [
            f"{quoted(json.dumps(name, ensure_ascii=False) + ': ')} "
            f"{self._rule(self._expression(value, f'{path}.{name}', depth + 1))}"
            for name, value in properties.items()
        ]
        return f'"{{" {self._chain(pairs, [name in required for name in properties])} "}}"'

    def _chain(self, pairs: Sequence[str], required: Sequence[bool]) -> str:
        """Pairs in order, optional ones left out at will, a comma between those that are there.

        Built from the end, two rules a pair (nothing written yet, something written): linear in
        the number of pairs, where listing the combinations would be exponential.
        """
        first = rest = '""'
        for pair, needed in reversed(list(zip(pairs, required, strict=True))):
            name = self._rule(pair)
            begun = self._rule(f"{name} {rest}" if needed else f"{name} {rest} | {first}")
            rest = self._rule(f'", " {name} {rest}' if needed else f'", " {name} {rest} | {rest}')
            first = begun
        return first

    def _map(self, values: Json, path: str, depth: int) -> str:
        if values is False:
            return '"{}"'
        value = self._rule(self._expression(values, f"{path}.*", depth + 1))
        return f'"{{" (string ": " {value} (", " string ": " {value})*)? "}}"'

    def _array(self, schema: Object, path: str, depth: int) -> str:
        item = self._rule(self._expression(schema.get("items", True), f"{path}[]", depth + 1))
        least, most = self._bounds(schema, "minItems", "maxItems", path)
        if most == 0:
            return '"[]"'
        more = f'(", " {item}){_repeat(max(least - 1, 0), None if most is None else most - 1)}'
        return f'"[" {item} {more} "]"' if least else f'"[" ({item} {more})? "]"'

    def _string(self, schema: Object, path: str) -> str:
        least, most = self._bounds(schema, "minLength", "maxLength", path)
        if (least, most) == (0, None):
            return "string"
        if most is None:
            return f'"\\"" {"char " * least}letters "\\""'
        return f'"\\"" char{_repeat(least, most)} "\\""'

    def _bounds(self, schema: Object, low: str, high: str, path: str) -> tuple[int, int | None]:
        """Least and most repetitions; those that are too large, or make no sense, are loosened."""
        least, most = _count(schema, low) or 0, _count(schema, high)
        if least > MAX_REPEAT:
            self._loosen(f"{path}.{low}")
            least = 0
        if most is not None and not least <= most <= MAX_REPEAT:
            self._loosen(f"{path}.{high}")
            most = None
        return least, most

    def _integer(self, schema: Object, path: str) -> str:
        least, most = _whole(schema, "minimum"), _whole(schema, "maximum")
        if least is not None and most is not None and 0 <= most - least <= MAX_RANGE:
            return _union(f'"{n}"' for n in range(least, most + 1))
        if "maximum" in schema:
            self._loosen(f"{path}.maximum")
        if "minimum" in schema and least not in (0, 1):
            self._loosen(f"{path}.minimum")
        return {None: "integer", 0: "natural", 1: "positive"}.get(least, "integer")

    def _number(self, schema: Object, path: str) -> str:
        if schema.get("minimum") == 0:
            return "natural fraction"
        if "minimum" in schema:
            self._loosen(f"{path}.minimum")
        return "number"


def _union(options: Iterable[str]) -> str:
    """Alternatives in brackets: an expression that can stand anywhere."""
    return f"({' | '.join(options)})"


def _repeat(least: int, most: int | None) -> str:
    return f"{{{least},{'' if most is None else most}}}"


def _types(schema: Object) -> list[str]:
    """The types that a value may have; all of them when the schema does not say."""
    match schema.get("type"):
        case str(name):
            return [name]
        case [*names] if names:
            return [str(name) for name in names]
    for name, keywords in _BY_TYPE.items():
        if keywords & schema.keys():
            return [name]
    return ["object", "array", "string", "number", "boolean", "null"]


def _keywords(types: Iterable[str]) -> frozenset[str]:
    return frozenset().union(*(_BY_TYPE.get(name, frozenset()) for name in types))


def _properties(schema: Object) -> tuple[dict[str, Json], set[str]]:
    """Properties by name, and the names that must be there, which need not have a schema."""
    declared, names = schema.get("properties"), schema.get("required")
    properties = dict(declared) if isinstance(declared, dict) else {}
    required = [name for name in names if isinstance(name, str)] if isinstance(names, list) else []
    return properties | {name: True for name in required if name not in properties}, set(required)


def _count(schema: Object, keyword: str) -> int | None:
    value = _whole(schema, keyword)
    return value if value is None or value >= 0 else None


def _whole(schema: Object, keyword: str) -> int | None:
    """The keyword's value when it is a whole number."""
    match schema.get(keyword):
        case bool():
            return None
        case int(value):
            return value
        case float(value) if value.is_integer():
            return int(value)
    return None
