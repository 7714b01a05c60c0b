"""Every knob of a recipe, with its value, its unit and where the value comes from.

The text is the docstring under the field, read from the source: one place says it, and a knob
without one is an error of ours that a test finds.
"""

from __future__ import annotations

import ast
import inspect
import textwrap
from collections.abc import Iterator

import msgspec

from trainer.recipe import Recipe


class Knob(msgspec.Struct, frozen=True):
    """One setting."""

    path: str
    """As in the YAML file, `training.learning_rate`."""
    value: object
    default: bool
    """Whether the recipe leaves it at the default."""
    text: str
    """Unit, choice and source."""


def explain(recipe: Recipe) -> list[Knob]:
    """The knobs of a recipe, in the order of its file."""
    return list(_knobs(recipe, ""))


def _knobs(settings: msgspec.Struct, prefix: str) -> Iterator[Knob]:
    texts = _texts(type(settings))
    for field in msgspec.structs.fields(settings):
        value = getattr(settings, field.name)
        path = f"{prefix}{field.name}"
        match value:
            case msgspec.Struct():
                yield from _knobs(value, f"{path}.")
            case [msgspec.Struct(), *_]:
                for number, one in enumerate(value):
                    yield from _knobs(one, f"{path}[{number}].")
            case _:
                yield Knob(path, value, value == _default(field), texts.get(field.name, ""))


def _default(field: msgspec.structs.FieldInfo) -> object:
    if field.default_factory is not msgspec.NODEFAULT:
        return field.default_factory()
    return field.default


def _texts(settings: type[msgspec.Struct]) -> dict[str, str]:
    """Field → the docstring under it, of a class and those that it extends."""
    texts: dict[str, str] = {}
    for one in reversed(settings.__mro__):
        if one is not msgspec.Struct and issubclass(one, msgspec.Struct):
            texts |= _own_texts(one)
    return texts


def _own_texts(settings: type[msgspec.Struct]) -> dict[str, str]:
    (defined,) = ast.parse(textwrap.dedent(inspect.getsource(settings))).body
    assert isinstance(defined, ast.ClassDef)
    texts: dict[str, str] = {}
    name = ""
    for statement in defined.body:
        match statement:
            case ast.AnnAssign(target=ast.Name(id=found)):
                name = found
            case ast.Expr(value=ast.Constant(value=str(text))) if name:
                texts[name] = " ".join(text.split())
    return texts
