"""Small mistakes, made one at a time in what decides: does a test see each?

    python -m tests.harden.mutants [--sample 60] [--only routing] [--seed 1]

A mutant is one module with one operator, constant, condition or statement changed; it is killed
when its tests fail. Prints the share that was killed, with its 95 % interval (Wilson), and the
survivors. The module is mutated in memory: no file is written.
"""

from __future__ import annotations

import argparse
import ast
import copy
import random
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import NamedTuple

from proxy.protocol.evidence.intervals import wilson

MODULES = {
    "routing": ("proxy.routing", ["tests/test_routing.py"]),
    "toolcheck": ("proxy.protocol.toolcheck", ["tests/protocol/test_toolcheck.py",
                  "tests/protocol/test_unfolding.py"]),
    "cascade": ("proxy.cascade", ["tests/test_cascade.py", "tests/test_verify.py"]),
    "gate": ("trainer.gate_rules", ["tests/trainer/test_gate.py"]),
    "limits": ("proxy.limits", ["tests/test_limits.py"]),
}  # fmt: skip
"""Name → module, and the tests that should see its mistakes."""
_COMPARED: dict[type[ast.cmpop], type[ast.cmpop]] = {
    ast.Eq: ast.NotEq, ast.NotEq: ast.Eq, ast.Lt: ast.LtE, ast.LtE: ast.Lt, ast.Gt: ast.GtE,
    ast.GtE: ast.Gt, ast.Is: ast.IsNot, ast.IsNot: ast.Is, ast.In: ast.NotIn, ast.NotIn: ast.In,
}  # fmt: skip
_OPERATED: dict[type[ast.operator], type[ast.operator]] = {
    ast.Add: ast.Sub, ast.Sub: ast.Add, ast.Mult: ast.Add, ast.FloorDiv: ast.Mult,
}  # fmt: skip
PATIENCE_S = 300
"""A mutant that takes longer hangs, which counts as seen."""
_RUN = """
import ast, importlib.abc, importlib.machinery, importlib.util, sys
name, path, source = sys.argv[1], sys.argv[2], sys.stdin.read()
class Finder(importlib.abc.MetaPathFinder, importlib.abc.SourceLoader):
    def find_spec(self, wanted, where, target=None):
        return importlib.util.spec_from_file_location(wanted, path, loader=self) if wanted == name else None
    def get_filename(self, fullname): return path
    def get_data(self, place): return source.encode()
    def path_stats(self, place): raise OSError
sys.meta_path.insert(0, Finder())
sys.dont_write_bytecode = True
import pytest
sys.exit(pytest.main(["-x", "-q", "-p", "no:cacheprovider", *sys.argv[3:]]))
"""  # noqa: E501


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
    for node in ast.walk(tree):
        # What is written for readers and checkers only is no mistake when it differs.
        if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef):
            node.returns = None
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
        case ast.If(test=test) | ast.IfExp(test=test):
            yield node, "condition negated", lambda: setattr(node, "test", _not(test))
        case ast.Return(value=ast.expr()):
            yield node, "returns None", lambda: setattr(node, "value", ast.Constant(None))
        case ast.Constant(value=bool(value)):
            yield node, f"{value} → {not value}", lambda: setattr(node, "value", not value)
        case ast.Constant(value=int(value)):
            yield node, f"{value} → {value + 1}", lambda: setattr(node, "value", value + 1)


def _not(test: ast.expr) -> ast.expr:
    return ast.UnaryOp(ast.Not(), test)


def _name(node: ast.AST) -> str:
    return type(node).__name__


def is_killed(module: str, path: Path, mutant: Mutant, tests: list[str]) -> bool:
    """Whether its tests fail, or hang."""
    command = [sys.executable, "-c", _RUN, module, str(path), *tests]
    try:
        ended = subprocess.run(
            command,
            input=mutant.source.encode(),
            capture_output=True,
            timeout=PATIENCE_S,
            check=False,
        )
    except subprocess.TimeoutExpired:
        return True
    return ended.returncode != 0


def main() -> None:
    given = argparse.ArgumentParser(description=__doc__)
    given.add_argument("--sample", type=int, default=60, help="of each module")
    given.add_argument("--only", action="append", choices=MODULES)
    given.add_argument("--seed", type=int, default=1)
    asked = given.parse_args()
    print(
        "| module | mutants | tried | killed | 95 % interval |\n|---|---|---|---|---|", flush=True
    )
    for name in asked.only or MODULES:
        module, tests = MODULES[name]
        path = Path(module.replace(".", "/") + ".py")
        everyone = mutants(path.read_text())
        chosen = random.Random(asked.seed).sample(everyone, min(asked.sample, len(everyone)))
        unchanged = Mutant(0, "", ast.unparse(ast.parse(path.read_text())))
        if is_killed(module, path, unchanged, tests):
            sys.exit(f"{name}: its tests fail as it is")
        survivors = [mutant for mutant in chosen if not is_killed(module, path, mutant, tests)]
        killed = len(chosen) - len(survivors)
        within = wilson(killed, len(chosen))
        share = f"{killed} ({killed / len(chosen):.0%}) | {within.low:.0%} to {within.high:.0%}"
        print(f"| {name} | {len(everyone)} | {len(chosen)} | {share} |", flush=True)
        for one in survivors:
            print(f"  {path}:{one.line}: {one.what}", file=sys.stderr, flush=True)


if __name__ == "__main__":
    main()
