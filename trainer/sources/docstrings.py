"""Docstrings of installed packages: their public functions, classes and methods.

Packages are imported, as half of NumPy's docstrings are in compiled modules and are only put there
when it is; what a docstring's sections say is read by griffe. Name only packages that you trust.
"""

from __future__ import annotations

import importlib
import inspect
import logging
import re
import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from importlib.metadata import PackageNotFoundError, version
from types import ModuleType
from typing import Any, TypeAlias

import griffe

from trainer.errors import SourceError
from trainer.recipe.sources import PythonDocsSettings
from trainer.rows import Row
from trainer.sources.html import unprompted
from trainer.sources.lessons import lessons
from trainer.sources.standalone import standing_alone
from trainer.sources.thing import Thing

Object: TypeAlias = Any
"""Anything that a module holds."""

_LONGEST = 100_000
"""Characters of a docstring that is read."""
_ADDRESS = re.compile(r" at 0x[0-9a-fA-F]+")
"""Where an object lies in memory: another place in each process."""


class Package:
    """One installed package."""

    def __init__(self, name: str, settings: PythonDocsSettings) -> None:
        self._name = name
        self._settings = settings

    def rows(self) -> Iterator[Row]:
        """Lessons of each thing, by name; one that has several names by the shortest."""
        module = _imported(self._name)
        library = f"{self._name} {_version(self._name)}"
        with _quiet():
            for name, thing in sorted(_public(module).items()):
                described = self._described(name, thing, library)
                yield from lessons(described, self._settings)

    def _described(self, name: str, thing: Object, library: str) -> Thing:
        # Packages write objects into docstrings when they are imported, with their addresses.
        sections = _sections(_ADDRESS.sub("", inspect.getdoc(thing) or ""))
        signature, told = _signature(name, thing), _texts(sections)
        if not signature and told and "(" in told[0].split("\n")[0]:
            # Compiled functions say it in their first line.
            signature, _, rest = told[0].partition("\n")
            told[0] = rest.strip()
        return Thing(
            name=name,
            library=library,
            signature=signature.strip(),
            about="\n\n".join(filter(None, told))[:2000].strip(),
            parameters="\n".join(_parameters(sections)),
            examples=tuple(_examples(sections)),
            source=f"python_docs:{library}/{name}",
            code=standing_alone(thing),
            license=self._settings.license,
        )


def _imported(name: str) -> ModuleType:
    try:
        with _quiet():
            return importlib.import_module(name)
    except ImportError as error:
        raise SourceError(f"the package {name!r} cannot be imported ({error})") from error


def _version(name: str) -> str:
    try:
        return version(name)
    except PackageNotFoundError:
        return ""


@contextmanager
def _quiet() -> Iterator[None]:
    """Deprecated names warn when they are looked at, and griffe logs what it cannot read."""
    griffes = logging.getLogger("griffe")
    griffes.addFilter(_nothing)
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            yield
    finally:
        griffes.removeFilter(_nothing)


def _nothing(record: logging.LogRecord) -> bool:
    return False


def _public(module: ModuleType) -> dict[str, Object]:
    """Name → thing: the functions and classes of a module and of those in it, and their methods."""
    names: dict[int, tuple[str, Object]] = {}
    for name, thing in _walk(module, {module.__name__}):
        known = names.get(id(thing))
        if known is None or len(name) < len(known[0]):
            names[id(thing)] = (name, thing)
    found = dict(names.values())
    classes = {name: thing for name, thing in found.items() if inspect.isclass(thing)}
    return found | {f"{c}.{key}": m for c, of in classes.items() for key, m in _methods(of)}


def _methods(of: type) -> Iterator[tuple[str, Object]]:
    for key, method in _members(of):
        above = getattr(method, "__objclass__", of)
        if callable(method) and above.__module__ != "builtins":
            yield key, method


def _walk(module: ModuleType, seen: set[str]) -> Iterator[tuple[str, Object]]:
    package = module.__name__.partition(".")[0]
    for key, thing in _members(module):
        name = f"{module.__name__}.{key}"
        if inspect.ismodule(thing):
            if thing.__name__.startswith(f"{package}.") and thing.__name__ not in seen:
                seen.add(thing.__name__)
                yield from _walk(thing, seen)
        elif inspect.isclass(thing):
            if (thing.__module__ or "").partition(".")[0] == package:
                yield name, thing
        elif callable(thing):
            yield name, thing


def _members(of: Object) -> Iterator[tuple[str, Object]]:
    for key in sorted(dir(of)):
        if key.startswith("_") or key in ("tests", "test", "testing", "conftest"):
            continue
        try:
            yield key, getattr(of, key)
        except Exception:  # noqa: S112 - a package's own code runs here
            continue


# ---------------------------------------------------------------- one docstring


def _sections(doc: str) -> list[griffe.DocstringSection]:
    docstring = griffe.Docstring(doc[:_LONGEST])
    return docstring.parse(griffe.Parser.sphinx if ":param" in doc else griffe.Parser.numpy)


def _texts(sections: list[griffe.DocstringSection]) -> list[str]:
    return [s.value for s in sections if isinstance(s, griffe.DocstringSectionText)][:2]


class _Anything:
    """A default that is not said, as documentation writes it."""

    def __repr__(self) -> str:
        return "..."


def _signature(name: str, thing: Object) -> str:
    try:
        signature = inspect.signature(thing)
        said = [_steady(parameter) for parameter in signature.parameters.values()]
        return _ADDRESS.sub("", f"{name}{signature.replace(parameters=said)}")
    except (ValueError, TypeError):
        return ""


def _steady(parameter: inspect.Parameter) -> inspect.Parameter:
    """The parameter; without its default where that reads otherwise in another process."""
    is_set = isinstance(parameter.default, set | frozenset)
    if is_set or _ADDRESS.search(repr(parameter.default)):
        return parameter.replace(default=_Anything())
    return parameter


def _parameters(sections: list[griffe.DocstringSection]) -> Iterator[str]:
    for section in sections:
        if isinstance(section, griffe.DocstringSectionParameters):
            for one in section.value:
                kind = f" ({one.annotation})" if one.annotation else ""
                yield f"- `{one.name}`{kind}: {' '.join(one.description.split())}"


def _examples(sections: list[griffe.DocstringSection]) -> Iterator[tuple[str, str]]:
    before = ""
    for section in sections:
        if not isinstance(section, griffe.DocstringSectionExamples):
            continue
        for kind, said in section.value:
            if kind is griffe.DocstringSectionKind.examples:
                yield before, unprompted(said)
                before = ""
            else:
                before = str(said).strip()
