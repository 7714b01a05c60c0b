"""What is wrong with settings, told so that it can be put right: where, and what was meant."""

from __future__ import annotations

import difflib
import re
from collections.abc import Callable, Iterator
from typing import TypeAlias

import msgspec
from msgspec import inspect

from proxy.backends.settings import KINDS

Convert: TypeAlias = Callable[[object], object]

_AT = re.compile(r"^(?P<what>.*?) - at (?:`key` in )?`(?P<path>[^`]+)`$", re.DOTALL)
_UNKNOWN = re.compile(r"unknown field `([^`]+)`")
_UNCHOSEN = re.compile(r"^Invalid enum value '?([^']*)'?$")


def told(message: str, document: object, whole: type, convert: Convert) -> str:
    """msgspec's message about a document, with the whole path and what may have been meant.

    `whole`: the type that the document should be; `convert` makes it that, or raises.
    """
    found = _AT.match(message)
    what, path = (found["what"], found["path"]) if found else (message, "$")
    steps = list(_steps(path, message, document, convert))
    place = "".join(f"[{step}]" if isinstance(step, int) else f".{step}" for step in steps)
    return f"${place}: {what}{_suggestion(what, steps, document, whole)}"


def _steps(path: str, message: str, document: object, convert: Convert) -> Iterator[str | int]:
    """The path's steps. msgspec writes `[...]` for a mapping's key, which is found by trying."""
    here = document
    trail: list[str | int] = []
    for name, index in re.findall(r"\.([^.\[\]]+)|\[([^\]]*)\]", path):
        step: str | int = name or (int(index) if index.isdigit() else "...")
        if step == "..." and isinstance(here, dict):
            step = next(
                (k for k in here if _fails(_only(document, trail, k), message, convert)), "..."
            )
        trail.append(step)
        yield step
        here = _inside(here, step)


def _fails(document: object, message: str, convert: Convert) -> bool:
    """Whether this document is wrong for the same reason."""
    try:
        convert(document)
    except msgspec.ValidationError as error:
        return str(error) == message
    return False


def _only(value: object, trail: list[str | int], key: str) -> object:
    """The document with `key` as the only one of the mapping at the end of the trail."""
    if not trail and isinstance(value, dict):
        return {key: value[key]}
    if isinstance(value, dict):
        return {k: _only(v, trail[1:], key) if k == trail[0] else v for k, v in value.items()}
    if isinstance(value, list):
        return [_only(v, trail[1:], key) if i == trail[0] else v for i, v in enumerate(value)]
    return value


def _inside(value: object, step: str | int) -> object:
    if isinstance(value, dict):
        return value.get(step)
    if isinstance(value, list) and isinstance(step, int) and step < len(value):
        return value[step]
    return None


def _suggestion(what: str, steps: list[str | int], document: object, whole: type) -> str:
    if len(steps) == 3 and steps[-1] == "kind" and what.startswith("Invalid value"):
        return f"; known are: {', '.join(KINDS)}"
    here = _type_at(inspect.type_info(whole), steps, document)
    unknown = _UNKNOWN.search(what)
    if unknown is not None:
        return _near(unknown[1], _fields(here))
    chosen = _UNCHOSEN.search(what)
    return _near(chosen[1], _choices(here)) if chosen else ""


def _near(name: str, known: list[str]) -> str:
    if not known:
        return ""
    nearest = difflib.get_close_matches(name, known, n=1, cutoff=0.5)
    return f"; did you mean `{nearest[0]}`?" if nearest else f"; known are: {', '.join(known)}"


def _fields(kind: inspect.Type | None) -> list[str]:
    """Names of the fields that a struct knows."""
    if not isinstance(kind, inspect.StructType):
        return []
    tag = [kind.tag_field] if kind.tag_field else []
    return [*tag, *(field.encode_name for field in kind.fields)]


def _choices(kind: inspect.Type | None) -> list[str]:
    match kind:
        case inspect.LiteralType():
            return [str(value) for value in kind.values]
        case inspect.UnionType():
            return [choice for one in kind.types for choice in _choices(one)]
        case _:
            return []


def _type_at(kind: inspect.Type, steps: list[str | int], value: object) -> inspect.Type | None:
    """The type of what stands at the end of `steps`; None where nothing may."""
    if isinstance(kind, inspect.UnionType) and any(map(_is_struct, kind.types)):
        return _type_at(_chosen(kind, value), steps, value)
    if not steps:
        return kind
    inner: inspect.Type | None
    match kind:
        case inspect.StructType():
            inner = {field.encode_name: field.type for field in kind.fields}.get(str(steps[0]))
        case inspect.DictType():
            inner = kind.value_type
        case inspect.ListType() | inspect.VarTupleType():
            inner = kind.item_type
        case inspect.UnionType():
            inner = next((one for one in kind.types if isinstance(one, inspect.ListType)), None)
            return None if inner is None else _type_at(inner, steps, value)
        case _:
            inner = None
    return None if inner is None else _type_at(inner, steps[1:], _inside(value, steps[0]))


def _is_struct(kind: inspect.Type) -> bool:
    return isinstance(kind, inspect.StructType)


def _chosen(union: inspect.UnionType, value: object) -> inspect.Type:
    structs = [kind for kind in union.types if isinstance(kind, inspect.StructType)]
    tagged = [s for s in structs if s.tag_field and s.tag == _inside(value, s.tag_field)]
    return (tagged or structs)[0]
