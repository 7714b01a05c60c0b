"""Filters that look at the Python in an answer: is it there, does it compile, does it run?

Code is what stands in ```python blocks, one after the other as one program; `>>>` prompts of
interactive sessions are taken off, with the output between them.
"""

from __future__ import annotations

import ast
import doctest
import importlib.util
import json
import re
import subprocess
import sys
from pathlib import Path
from typing import ClassVar

from trainer.curate.filter import Drop
from trainer.errors import RecipeError
from trainer.recipe import Recipe
from trainer.recipe.curation import (
    CodeBlockSettings,
    CodeDeprecatedSettings,
    CodeImportsSettings,
    CodeRunsSettings,
    CodeSyntaxSettings,
)
from trainer.rows import Row
from trainer.sandbox import Limits, Sandbox
from trainer.syntax import parsed

_BLOCK = re.compile(r"^[ \t]*```(?:python|py|python3|pycon)[^\n]*\n(.*?)^[ \t]*```", re.M | re.S)
_RUFF_S = 30.0


def blocks(text: str) -> list[str]:
    """The code of a text's Python blocks."""
    return [_without_prompts(block) for block in _BLOCK.findall(text)]


def program(row: Row) -> str:
    """The row's code as one program; "" where there is none."""
    return "" if row.calls else "\n\n".join(blocks(row.text))


def _without_prompts(block: str) -> str:
    if not re.search(r"^\s*>>> ", block, re.M):
        return block
    try:
        examples = doctest.DocTestParser().get_examples(block)
    except ValueError:
        return block
    return "".join(example.source for example in examples)


def imported(code: str) -> list[str]:
    """Top-level packages that a text of Python imports, in order; none where it does not parse."""
    names: list[str] = []
    for node in ast.walk(parsed(code) or ast.Module([], [])):
        match node:
            case ast.Import(names=found):
                names += [alias.name.partition(".")[0] for alias in found]
            case ast.ImportFrom(module=str(module), level=0):
                names.append(module.partition(".")[0])
    return names


class CodeBlock:
    """There is a block of Python, and it does something."""

    version: ClassVar[int] = 2

    def __init__(self, settings: CodeBlockSettings, recipe: Recipe) -> None:
        self._signatures = settings.signatures

    def __call__(self, row: Row) -> Row | Drop:
        code = program(row)
        if not code.strip():
            return Drop("no_python_block")
        if not self._signatures and _only_declares(parsed(code)):
            return Drop("only_signatures")
        return row


def _only_declares(tree: ast.Module | None) -> bool:
    """Whether all that it does is to define functions that do nothing, `def f(a): ...`."""
    return tree is not None and bool(tree.body) and all(map(_is_empty, tree.body))


def _is_empty(line: ast.stmt) -> bool:
    match line:
        case ast.FunctionDef(body=body) | ast.AsyncFunctionDef(body=body) | ast.ClassDef(body=body):
            return all(map(_is_empty, body))
        case ast.Expr(value=ast.Constant()) | ast.Pass():
            return True
    return False


class CodeSyntax:
    """It is Python."""

    version: ClassVar[int] = 1

    def __init__(self, settings: CodeSyntaxSettings, recipe: Recipe) -> None:
        pass

    def __call__(self, row: Row) -> Row | Drop:
        return row if parsed(program(row)) is not None else Drop("syntax_error")


class CodeImports:
    """What it imports is installed here."""

    version: ClassVar[int] = 1

    def __init__(self, settings: CodeImportsSettings, recipe: Recipe) -> None:
        pass

    def __call__(self, row: Row) -> Row | Drop:
        missing = next((name for name in imported(program(row)) if not is_installed(name)), None)
        return row if missing is None else Drop("import_missing", missing)


def is_installed(package: str) -> bool:
    """Whether a package can be imported here; nothing is imported to find out."""
    if package in sys.stdlib_module_names:
        return True
    try:
        return importlib.util.find_spec(package) is not None
    except (ImportError, ValueError):
        return False


class CodeDeprecated:
    """Ruff knows nothing newer for what it uses."""

    version: ClassVar[int] = 1

    def __init__(self, settings: CodeDeprecatedSettings, recipe: Recipe) -> None:
        if importlib.util.find_spec("ruff") is None:
            raise RecipeError("filters.code_deprecated needs ruff; run `make train-setup`")
        self._settings = settings

    def __call__(self, row: Row) -> Row | Drop:
        code = program(row)
        if not code:
            return row
        found = outdated(code, self._settings)
        return Drop("deprecated_api", ", ".join(found)) if found else row


def outdated(code: str, settings: CodeDeprecatedSettings) -> list[str]:
    """Codes of the rules that the code breaks; raises RecipeError where ruff fails."""
    rules, target = ",".join(settings.rules), settings.target
    done = subprocess.run(  # noqa: S603 - ruff, with options from the recipe
        [
            *(str(Path(sys.executable).with_name("ruff")), "check", "--isolated", "--no-cache"),
            *("--select", rules, "--target-version", target, "--output-format", "json"),
            *("--preview", "--quiet", "--stdin-filename", "answer.py", "-"),
        ],
        input=code.encode("utf-8", "replace"),
        capture_output=True,
        timeout=_RUFF_S,
        check=False,
    )
    if done.returncode not in (0, 1):
        raise RecipeError(f"filters.code_deprecated: {done.stderr.decode().strip()[:300]}")
    return sorted({str(one["code"]) for one in json.loads(done.stdout) if one.get("code")})


class CodeRuns:
    """It runs to its end, in the sandbox, and no package warns that it is on its way out."""

    version: ClassVar[int] = 1

    def __init__(self, settings: CodeRunsSettings, recipe: Recipe) -> None:
        self._refuses_deprecated = settings.deprecated
        limits = Limits(seconds=settings.seconds, memory=settings.memory_mb * 2**20)
        self._sandbox = Sandbox(limits, preload=settings.preload)

    def __call__(self, row: Row) -> Row | Drop:
        code = program(row)
        if not code:
            return row
        run = self._sandbox.run(code)
        if run.reason != "ok":
            return Drop(f"code_{run.reason}", run.detail)
        if run.deprecations and self._refuses_deprecated:
            return Drop("code_warns_of_deprecation", run.deprecations[0])
        return row
