"""Lessons: what documentation teaches of one thing, as rows of question and answer."""

from __future__ import annotations

import re
from collections.abc import Iterator
from fnmatch import fnmatchcase
from typing import TypeAlias

import msgspec

from proxy.protocol.openai import Message
from trainer.formats.alpaca import question_of
from trainer.formats.base import row
from trainer.recipe.sources import PythonDocsSettings
from trainer.rows import Row
from trainer.sources.html import fenced
from trainer.sources.tasks import tasks
from trainer.sources.thing import Thing
from trainer.syntax import parsed

_SIGNATURE = re.compile(
    r"(?:\w+ )*?(?:[\w.]+\.)?(?P<name>\w+)\((?P<parameters>.*)\)(?P<returned> *(?:->|→).*)?"
)
_LEFT_OUT = re.compile(r"\[,? ?(\w+)(?:=[^,\[\]]*)?")


Lesson: TypeAlias = tuple[Message, str]
"""A question and its answer."""


def lessons(thing: Thing, settings: PythonDocsSettings) -> Iterator[Row]:
    """The rows of one thing, of the kinds that are wanted; none where its name is left out."""
    if any(fnmatchcase(thing.name, pattern) for pattern in settings.leave_out):
        return
    for kind, made in _KINDS.items():
        if kind in settings.lessons:
            for question, answer in made(thing, settings):
                yield _row(thing, question, answer)


def _meaning(thing: Thing, settings: PythonDocsSettings) -> Iterator[Lesson]:
    if thing.about and thing.signature:
        said = f"{_shown(thing.signature)}\n\n{thing.about}"
        yield _asked(thing, f"What does `{thing.name}` do, and how is it called?"), said


def _parameters(thing: Thing, settings: PythonDocsSettings) -> Iterator[Lesson]:
    if thing.parameters:
        asked = f"Which parameters does `{thing.name}` take?"
        yield _asked(thing, asked), f"{_shown(thing.signature)}\n\n{thing.parameters}".strip()


def _examples(thing: Thing, settings: PythonDocsSettings) -> Iterator[Lesson]:
    for number, (before, code) in enumerate(thing.examples, start=1):
        which = f"Show an example of `{thing.name}`" + (f" (number {number})" if number > 1 else "")
        yield _asked(thing, f"{which}."), f"{before}\n\n{fenced(code)}".strip()


def _tasks(thing: Thing, settings: PythonDocsSettings) -> Iterator[Lesson]:
    for task in tasks(thing):
        for question in task.questions[: settings.phrasings]:
            yield Message(role="user", content=question), task.answer


_KINDS = {
    "meaning": _meaning,
    "parameters": _parameters,
    "examples": _examples,
    "tasks": _tasks,
}


def _asked(thing: Thing, instruction: str) -> Message:
    return question_of(instruction, f"Library: {thing.library}")


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
        if parsed(stub) is not None:
            return stub
    return ""


def _with_defaults(parameters: str) -> str:
    """`a[, b[, c]]`, as older documentation marks what may be left out, as `a, b=..., c=...`."""
    return _LEFT_OUT.sub(r", \1=...", parameters).replace("]", "").removeprefix(", ")


def _row(thing: Thing, question: Message, output: str) -> Row:
    """All lessons of one thing stay on one side of a split."""
    return msgspec.structs.replace(
        row([question], (), text=output),
        source=thing.source,
        license=thing.license,
        group=f"{thing.library}:{thing.name}",
    )
