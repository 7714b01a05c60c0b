"""A function's own code, where it stands alone: with the imports that it needs, and short.

Docstring and annotations are taken off: the one is what is asked, the others name what a reader
of an answer need not know.
"""

from __future__ import annotations

import ast
import builtins
import importlib
import inspect
import sys
import textwrap
from collections.abc import Mapping
from types import FunctionType, ModuleType
from typing import Any, TypeAlias

from trainer.syntax import parsed

Object: TypeAlias = Any
"""Anything that a module holds."""

_MOST_LINES = 24
"""Chosen: what is read at a glance. Longer functions take more than a small model can learn."""
_LONGEST_CONSTANT = 60
"""Characters."""
_BEHIND = {f"_{name}": name for name in ("bisect", "collections", "functools", "heapq", "operator")}
"""Compiled modules, and those that publish what they hold."""
_BUILTINS = frozenset(dir(builtins))


def standing_alone(thing: Object) -> str:
    """The function's code; "" where it is none, does nothing, is long or needs what is private."""
    function = _function(thing)
    if function is None or not _does_something(function):
        return ""
    bare = _Bare().visit(function)
    lines = [_line(name, thing.__globals__) for name in sorted(free(bare))]
    if "" in lines:
        return ""
    code = "\n".join([*lines, *([""] if lines else []), ast.unparse(bare)])
    return code if code.count("\n") < _MOST_LINES else ""


def free(tree: ast.AST) -> set[str]:
    """Names that are read in it, bound nowhere in it, and no builtins."""
    read: set[str] = set()
    bound: set[str] = set()
    for node in ast.walk(tree):
        match node:
            case ast.Name(id=name, ctx=ast.Load()):
                read.add(name)
            case ast.Name(id=name) | ast.arg(arg=name) | ast.ExceptHandler(name=str(name)):
                bound.add(name)
            case ast.FunctionDef(name=name) | ast.ClassDef(name=name):
                bound.add(name)
            case ast.Import(names=names) | ast.ImportFrom(names=names):
                bound |= {(alias.asname or alias.name).partition(".")[0] for alias in names}
    return read - bound - _BUILTINS


def _function(thing: Object) -> ast.FunctionDef | None:
    if not isinstance(thing, FunctionType):
        return None
    try:
        tree = parsed(textwrap.dedent(inspect.getsource(thing)))
    except (OSError, TypeError):
        return None
    function = tree.body[0] if tree is not None and tree.body else None
    if not isinstance(function, ast.FunctionDef) or _is_method(function):
        return None
    return function


def _is_method(function: ast.FunctionDef) -> bool:
    arguments = [*function.args.posonlyargs, *function.args.args]
    return bool(arguments) and arguments[0].arg in ("self", "cls")


def _does_something(function: ast.FunctionDef) -> bool:
    idle = (isinstance(line, ast.Pass | ast.Raise) or _is_text(line) for line in function.body)
    return not all(idle)


def _is_text(line: ast.stmt) -> bool:
    """A docstring, or `...`."""
    return isinstance(line, ast.Expr) and isinstance(line.value, ast.Constant)


class _Bare(ast.NodeTransformer):
    """Takes docstrings and annotations off."""

    def visit_FunctionDef(self, node: ast.FunctionDef) -> ast.FunctionDef:
        self.generic_visit(node)
        if ast.get_docstring(node) is not None:
            node.body = node.body[1:] or [ast.Pass()]
        node.returns = None
        return node

    def visit_arg(self, node: ast.arg) -> ast.arg:
        node.annotation = None
        return node


def _line(name: str, scope: Mapping[str, Object]) -> str:
    """The line that makes a global name known; "" where one does not."""
    thing = scope.get(name)
    if isinstance(thing, ModuleType):
        return "" if thing.__name__.startswith("_") else _import(thing.__name__, name)
    if isinstance(thing, int | str) and len(repr(thing)) < _LONGEST_CONSTANT:
        return f"{name} = {thing!r}"
    home, known = getattr(thing, "__module__", None) or "", getattr(thing, "__name__", "")
    home = _BEHIND.get(home, home)
    if (
        home.startswith("_")
        or known.startswith("_")
        or home.partition(".")[0] not in sys.stdlib_module_names
    ):
        return ""
    if getattr(importlib.import_module(home), known, None) is not thing:
        return ""
    return f"from {home} import {known}" + (f" as {name}" if name != known else "")


def _import(module: str, name: str) -> str:
    if module == name:
        return f"import {module}"
    parent, _, last = module.rpartition(".")
    return (
        f"from {parent} import {last}" if last == name and parent else f"import {module} as {name}"
    )
