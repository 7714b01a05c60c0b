"""Small mistakes, made one at a time in what decides: does a test see each?

    python -m tests.harden.mutants [--sample 60] [--only routing] [--seed 1] [--part 1/3]

A mutant is one module with one operator, constant, condition or statement changed; it is killed
when its tests fail. Prints the share that was killed, with its 95 % interval (Wilson) where only a
sample was tried, and the survivors. The module is mutated in memory: no file is written.

Each mutant gets a process that is forked from one which has imported everything that is not ours:
an interpreter of its own would spend most of its time there.
"""

from __future__ import annotations

import argparse
import ast
import copy
import importlib.abc
import importlib.machinery
import importlib.util
import os
import random
import signal
import sys
import tempfile
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import suppress
from importlib.metadata import entry_points
from pathlib import Path
from typing import NamedTuple, NoReturn

import pytest

from proxy.protocol.evidence.intervals import wilson

SETTINGS = ["tests/test_config_schema.py", "tests/test_config.py"]
"""What the settings of the proxy are is published, with bounds and defaults."""
CALLS = [f"tests/protocol/test_{name}.py"
         for name in ("toolcheck", "schemas", "fingerprints", "unfolding")]  # fmt: skip
ANSWERS = ["tests/test_cascade.py", "tests/test_verify.py"]
MODULES = {
    "routing": ("proxy.routing", ["tests/test_routing.py"]),
    "domains": ("proxy.domains", ["tests/test_routing.py", *SETTINGS]),
    "toolcheck": ("proxy.protocol.toolcheck", CALLS),
    "schemas": ("proxy.protocol.schemas", CALLS),
    "fingerprints": ("proxy.protocol.fingerprints", CALLS),
    "cascade": ("proxy.cascade", ANSWERS),
    "attempt": ("proxy.attempt", [*ANSWERS, "tests/test_shadow.py", "tests/test_wire_rules.py"]),
    "gate": ("trainer.gate_rules", ["tests/trainer/test_gate_rules.py",
             "tests/trainer/test_gate.py"]),
    "limits": ("proxy.limits", ["tests/test_limits.py", *SETTINGS]),
}  # fmt: skip
"""Name → module, and the tests that should see its mistakes."""
_COMPARED: dict[type[ast.cmpop], type[ast.cmpop]] = {
    ast.Eq: ast.NotEq, ast.NotEq: ast.Eq, ast.Lt: ast.LtE, ast.LtE: ast.Lt, ast.Gt: ast.GtE,
    ast.GtE: ast.Gt, ast.Is: ast.IsNot, ast.IsNot: ast.Is, ast.In: ast.NotIn, ast.NotIn: ast.In,
}  # fmt: skip
_OPERATED: dict[type[ast.operator], type[ast.operator]] = {
    ast.Add: ast.Sub, ast.Sub: ast.Add, ast.Mult: ast.Add, ast.FloorDiv: ast.Mult,
    ast.Div: ast.Mult,
}  # fmt: skip
OURS = ("proxy", "trainer", "tests")
_QUICK = ("-p", "no:cacheprovider", "-p", "no:xdist", "--assert=plain", "--tb=no")
_TICK_S = 0.02
_PATIENCE = 6000
"""Ticks of two minutes: a mutant that takes longer hangs, which counts as seen. Counted and not
measured, as a machine that stands still is no mutant's doing."""
_WRITTEN = ("frozen", "slots", "kw_only")
"""Keywords of a class that a type checker sees, and no request."""


class Mutant(NamedTuple):
    line: int
    what: str
    source: str


def mutants(source: str) -> list[Mutant]:
    """Every one of a module."""
    tree = ast.parse(source)
    count = sum(1 for _ in _changes(tree))
    found = []
    for number in range(count):
        changed = copy.deepcopy(tree)
        node, what, change = list(_changes(changed))[number]
        change()
        found.append(Mutant(getattr(node, "lineno", 0), what, ast.unparse(changed)))
    return found


Change = tuple[ast.AST, str, Callable[[], None]]


def _changes(tree: ast.Module) -> Iterator[Change]:
    written: set[ast.AST] = set()
    for node in ast.walk(tree):
        # What is written for readers and checkers only is no mistake when it differs.
        if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef):
            node.returns = None
        if isinstance(node, ast.keyword) and node.arg in _WRITTEN:
            written.add(node.value)
        if node not in written:
            yield from _of(node)


def _of(node: ast.AST) -> Iterator[Change]:
    match node:
        case ast.Compare(ops=[op]) if type(op) in _COMPARED:
            new = _COMPARED[type(op)]()
            yield node, f"{_name(op)} → {_name(new)}", lambda: node.ops.__setitem__(0, new)
        case ast.BoolOp(op=op):
            other = ast.Or() if isinstance(op, ast.And) else ast.And()
            yield node, f"{_name(op)} → {_name(other)}", lambda: setattr(node, "op", other)
        case ast.BinOp(op=op) if type(op) in _OPERATED:
            changed = _OPERATED[type(op)]()
            yield node, f"{_name(op)} → {_name(changed)}", lambda: setattr(node, "op", changed)
        case ast.AugAssign(op=op) if type(op) in _OPERATED:
            changed = _OPERATED[type(op)]()
            yield node, f"{_name(op)} → {_name(changed)}", lambda: setattr(node, "op", changed)
        case ast.UnaryOp(op=ast.Not(), operand=denied):
            yield node, "not left out", lambda: setattr(node, "operand", _not(denied))
        case ast.Expr(value=ast.Call() | ast.Await()):
            yield node, "left out", lambda: setattr(node, "value", ast.Constant(None))
        case ast.If(test=test) | ast.IfExp(test=test):
            yield node, "condition negated", lambda: setattr(node, "test", _not(test))
        case ast.Return(value=ast.Constant(value=bool() | None)):
            return  # None is as false as False.
        case ast.Return(value=ast.expr()):
            yield node, "returns None", lambda: setattr(node, "value", ast.Constant(None))
        case ast.Constant(value=bool(value)):
            yield node, f"{value} → {not value}", lambda: setattr(node, "value", not value)
        case ast.Constant(value=int(value) | float(value)):
            yield node, f"{value} → {value + 1}", lambda: setattr(node, "value", value + 1)


def _not(test: ast.expr) -> ast.expr:
    return ast.UnaryOp(ast.Not(), test)


def _name(node: ast.AST) -> str:
    return type(node).__name__


# ---------------------------------------------------------------- a process for each


def warm(tests: Sequence[str]) -> None:
    """Import what the tests import, and forget what is ours, so that it is made anew."""
    for plugin in entry_points(group="pytest11"):
        plugin.load()
    for test in ["tests/conftest.py", *tests]:
        importlib.import_module(test.removesuffix(".py").replace("/", "."))
    for name in [name for name in sys.modules if name.split(".")[0] in OURS]:
        if name != "tests.harden.mutants":
            del sys.modules[name]


def started(module: str, path: Path, source: str, tests: Sequence[str]) -> int:
    """A process that runs the tests on the module as it is in `source`."""
    child = os.fork()
    if child == 0:
        os.setsid()
        _run(module, path, source, tests)
    return child


def killed(
    module: str, path: Path, chosen: Sequence[Mutant], tests: Sequence[str], jobs: int
) -> Iterator[tuple[Mutant, bool]]:
    """Each mutant, and whether its tests failed or hung; so many at once."""
    waiting, at_work = list(chosen), dict[int, tuple[Mutant, int]]()
    while waiting or at_work:
        while waiting and len(at_work) < jobs:
            mutant = waiting.pop()
            at_work[started(module, path, mutant.source, tests)] = mutant, _PATIENCE
        time.sleep(_TICK_S)
        for child, (mutant, patience) in list(at_work.items()):
            at_work[child] = mutant, patience - 1
            status = _status(child, patience)
            if status is not None:
                del at_work[child]
                yield mutant, status != 0


def _run(module: str, path: Path, source: str, tests: Sequence[str]) -> NoReturn:
    """Run the tests on the module as it is in `source`, and end the process with their status."""
    status = 1
    try:
        nowhere = os.open(os.devnull, os.O_RDWR)
        for stream in range(3):
            os.dup2(nowhere, stream)
        sys.meta_path.insert(0, _Mutated(module, path, source))
        status = pytest.main(["-x", "-q", *_QUICK, *tests])
    finally:
        os._exit(status)


def _status(child: int, patience: int) -> int | None:
    """Of a process that has ended, or is ended now for want of patience; None: it is at work.

    Nothing that it started is left.
    """
    ended, status = os.waitpid(child, os.WNOHANG)
    if not ended and patience > 0:
        return None
    with suppress(ProcessLookupError):
        os.killpg(child, signal.SIGKILL)
    if not ended:
        os.waitpid(child, 0)
        return 1
    return os.waitstatus_to_exitcode(status)


class _Mutated(importlib.abc.MetaPathFinder, importlib.abc.SourceLoader):
    """Finds one module, in memory."""

    def __init__(self, module: str, path: Path, source: str) -> None:
        self._module, self._path, self._source = module, path, source

    def find_spec(
        self, fullname: str, path: object, target: object = None
    ) -> importlib.machinery.ModuleSpec | None:
        if fullname != self._module:
            return None
        return importlib.util.spec_from_file_location(fullname, self._path, loader=self)

    def get_filename(self, fullname: str) -> str:
        return str(self._path)

    def get_data(self, path: str) -> bytes:
        return self._source.encode()


# ---------------------------------------------------------------- all of them


def main() -> None:
    given = argparse.ArgumentParser(description=__doc__)
    given.add_argument("--sample", type=int, help="of each module; all, if not given")
    given.add_argument("--only", action="append", choices=MODULES)
    given.add_argument("--seed", type=int, default=1)
    given.add_argument("--jobs", type=int, default=2, help="mutants at once")
    given.add_argument("--part", default="1/1", help="of those: 2/3 is the second of three parts")
    asked = given.parse_args()
    # What a failing example was is not kept for the next mutant.
    os.environ["HYPOTHESIS_STORAGE_DIRECTORY"] = tempfile.mkdtemp()
    print(
        "| module | mutants | tried | killed | 95 % interval |\n|---|---|---|---|---|", flush=True
    )
    for name in asked.only or MODULES:
        _try(name, asked)


def _try(name: str, asked: argparse.Namespace) -> None:
    module, tests = MODULES[name]
    path = Path(module.replace(".", "/") + ".py")
    source = path.read_text()
    everyone, lines = mutants(source), source.splitlines()
    part, parts = map(int, asked.part.split("/"))
    wanted = min(asked.sample or len(everyone), len(everyone))
    chosen = random.Random(asked.seed).sample(everyone, wanted)[part - 1 :: parts]
    size = len(chosen)
    warm(tests)
    unchanged = [Mutant(0, "", ast.unparse(ast.parse(source)))]
    if any(failed for _, failed in killed(module, path, unchanged, tests, 1)):
        sys.exit(f"{name}: its tests fail as it is")
    survivors = 0
    for one, was_killed in killed(module, path, chosen, tests, asked.jobs):
        survivors += not was_killed
        if not was_killed:
            said = f"{path}:{one.line}: {one.what}: {lines[one.line - 1].strip()}"
            print(f"  {said}", file=sys.stderr, flush=True)
    dead = size - survivors
    within = wilson(dead, size)
    share = f"{dead} ({dead / size:.0%}) | {within.low:.0%} to {within.high:.0%}"
    print(f"| {name} | {len(everyone)} | {size} | {share} |", flush=True)


if __name__ == "__main__":
    main()
