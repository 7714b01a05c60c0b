"""JSON Schema of routes.yaml, for editors: what may stand where, and what it means.

The descriptions are the docstrings of the settings, so that there is one text for both.
"""

from __future__ import annotations

import ast
import inspect
import textwrap
from collections.abc import Iterator
from datetime import date, datetime
from pathlib import Path
from typing import Any

import msgspec

from proxy.config import Config

_TEXTS = {Path: None, date: "date", datetime: "date-time"}


def schema() -> dict[str, Any]:
    """The schema, JSON Schema 2020-12."""
    (reference,), components = msgspec.json.schema_components(
        [Config], schema_hook=_hook, ref_template="#/$defs/{name}"
    )
    described = {kind.__name__: dict(_docs(kind)) for kind in _structs(Config)}
    for name, component in components.items():
        for field, about in described.get(name, {}).items():
            component.get("properties", {}).get(field, {})["description"] = about
    return {
        "$schema": "https://json-schema.org/draft/2020-12/schema",
        "title": "routes.yaml of Headrace",
        **reference,
        "$defs": components,
    }


def _hook(kind: type) -> dict[str, Any]:
    form = _TEXTS.get(kind)
    return {"type": "string"} if form is None else {"type": "string", "format": form}


def _structs(kind: type) -> Iterator[type]:
    """A struct, and each that its fields name."""
    seen: set[type] = set()
    waiting: list[object] = [msgspec.inspect.type_info(kind)]
    while waiting:
        found = waiting.pop()
        if isinstance(found, msgspec.inspect.StructType):
            if found.cls in seen:
                continue
            seen.add(found.cls)
            waiting += [field.type for field in found.fields]
        for name in ("types", "item_type", "item_types", "key_type", "value_type", "type"):
            inner = getattr(found, name, None)
            waiting += inner if isinstance(inner, tuple) else [inner] if inner is not None else []
    yield from seen


def _docs(kind: type) -> Iterator[tuple[str, str]]:
    """Fields of a struct and of those that it is made of, with the text below each."""
    for base in reversed(kind.__mro__):
        if base is object or base.__module__.startswith("msgspec"):
            continue
        (body,) = ast.parse(textwrap.dedent(inspect.getsource(base))).body
        assert isinstance(body, ast.ClassDef)
        for field, about in zip(body.body, body.body[1:], strict=False):
            match field, about:
                case (
                    ast.AnnAssign(target=ast.Name(id=name)),
                    ast.Expr(value=ast.Constant(value=str(text))),
                ):
                    yield name, " ".join(text.split())
