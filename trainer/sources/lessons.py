"""Lessons: what documentation teaches of one thing, as rows of question and answer."""

from __future__ import annotations

import ast
import re
from collections.abc import Iterator

import msgspec

from trainer.formats.alpaca import question_of
from trainer.formats.base import row
from trainer.rows import Row
from trainer.sources.html import fenced

_SIGNATURE = re.compile(
    r"(?:\w+ )*?(?:[\w.]+\.)?(?P<name>\w+)\((?P<parameters>.*)\)(?P<returned> *(?:->|→).*)?"
)
_LEFT_OUT = re.compile(r"\[,? ?(\w+)(?:=[^,\[\]]*)?")


class Thing(msgspec.Struct, frozen=True, kw_only=True):
    """A function, class or method, as its documentation has it."""

    name: str
    """`json.dumps`"""
    library: str
    signature: str
    """`json.dumps(obj, *, indent=None)`; empty where it is not told."""
    about: str = ""
    """What it does, in a paragraph or two."""
    parameters: str = ""
    """What is told of its parameters, one a line."""
    examples: tuple[tuple[str, str], ...] = ()
    """(What is said before it, code without prompts)."""
    source: str
    license: str


def lessons(thing: Thing) -> Iterator[Row]:
    """A row for what it is, one for its parameters, one for each example."""
    if thing.about and thing.signature:
        said = f"{_shown(thing.signature)}\n\n{thing.about}"
        yield _row(thing, f"What does `{thing.name}` do, and how is it called?", said)
    if thing.parameters:
        asked = f"Which parameters does `{thing.name}` take?"
        yield _row(thing, asked, f"{_shown(thing.signature)}\n\n{thing.parameters}".strip())
    for number, (before, code) in enumerate(thing.examples, start=1):
        which = f"Show an example of `{thing.name}`" + (f" (number {number})" if number > 1 else "")
        yield _row(thing, f"{which}.", f"{before}\n\n{fenced(code)}".strip())


def _shown(signature: str) -> str:
    """A signature as Python that could be read as such, where it can be made so."""
    stubs = [_stub(line) for line in signature.splitlines()]
    return fenced("\n".join(stubs)) if all(stubs) else fenced(signature, "text")


def _stub(signature: str) -> str:
    """`json.dump(obj, *, indent=None)` → `def dump(obj, *, indent=None): ...`; "" if it is none."""
    parted = _SIGNATURE.fullmatch(signature)
    if parted is None:
        return ""
    parameters, returned = parted["parameters"], (parted["returned"] or "").replace("→", "->")
    for written in (parameters, _with_defaults(parameters)):
        stub = f"def {parted['name']}({written}){returned}: ..."
        if _is_python(stub):
            return stub
    return ""


def _with_defaults(parameters: str) -> str:
    """`a[, b[, c]]`, as older documentation marks what may be left out, as `a, b=..., c=...`."""
    return _LEFT_OUT.sub(r", \1=...", parameters).replace("]", "").removeprefix(", ")


def _is_python(code: str) -> bool:
    try:
        ast.parse(code)
    except (SyntaxError, ValueError, RecursionError, MemoryError):
        return False
    return True


def _row(thing: Thing, instruction: str, output: str) -> Row:
    """All lessons of one thing stay on one side of a split."""
    question = question_of(instruction, f"Library: {thing.library}")
    return msgspec.structs.replace(
        row([question], (), text=output),
        source=thing.source,
        license=thing.license,
        group=f"{thing.library}:{thing.name}",
    )
