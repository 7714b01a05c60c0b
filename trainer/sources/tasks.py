"""Tasks: what a documented thing does, asked for, with code that does it.

The first sentence of a description is the question ("Return the mean of data." → "How do I get the
mean of data?"), and the answer is a function that stands alone: the documented one itself, or the
last line of an example with what it is about as parameters. A signature is never an answer.
"""

from __future__ import annotations

import ast
import hashlib
import re
from collections.abc import Iterator
from typing import NamedTuple

from trainer.sources.html import fenced
from trainer.sources.standalone import free
from trainer.sources.thing import Thing
from trainer.syntax import parsed

_SENTENCE = re.compile(r".+?[.!?](?=\s|$)", re.S)
_MARKUP = re.compile(r":\w+:`~?([^`]*)`|``([^`]*)``")
_ITSELF = re.compile(r"^`?\w+(?:\(\))?`? (?=(?:returns|yields|creates|makes|takes|finds) )")
"""`name` returns …"""
_ARTICLES = ("The ", "A ", "An ")
_KNOWN = """
add aggregate align alter append apply assemble assign attach batch bin bind break broadcast
build call cast change check classify clip close collapse collect combine compare compute
concatenate conform construct consume convert copy count create cut decode describe deserialize
detect determine differentiate distribute divide draw drop encode ensure escape estimate
evaluate execute expand export extract fill filter find flatten format generate get give group
guess handle identify implement import increment indicate infer insert integrate interleave
interpolate invoke iterate join keep list load localize locate make map mask match measure merge
move multiply normalize open pad parse partition perform pivot prefix prepend print produce
provide put query quote raise read rearrange remove rename render reorder repeat replace
resample reset reshape resolve retrieve return reverse rotate round run save scale search select
send serialize set shift show skip slice sort split squeeze stack store strip subset subtract
suffix suppress swap take tell test transform translate transpose trim truncate try turn unpack
unpivot unquote unwrap update use validate visit walk wrap write yield zip
"""
_VERBS = frozenset(_KNOWN.split())
"""That begin a description, in their first form."""
_GIVES = ("return", "yield", "give", "retrieve")
_IMPORTS = {"np": "import numpy as np", "pd": "import pandas as pd"}
"""What examples take as imported already."""
_WHERE = {"numpy": " in NumPy", "pandas": " in pandas"}
_PHRASINGS = (
    "How do I {does}{where}? Write `{call}`.",
    "Write a function `{call}`{where} to {does}.",
    "How can I {does}{where}? Define `{call}`, and say briefly how it works.",
    "I need to {does}{where}. Write `{call}`.",
)
_MOST_NAMED = 3
"""Names that an answer says it uses, and values that a question gives."""
_LONGEST_VALUE = 60
"""Characters of one such value."""
_SHORTEST, _LONGEST = 3, 30
"""Words of what is asked."""


class Task(NamedTuple):
    """Ways to ask for the same, and the answer."""

    questions: tuple[str, ...]
    answer: str


class _Solution(NamedTuple):
    code: str
    given: tuple[str, ...] = ()
    """Values that the code has and the question must say."""


def tasks(thing: Thing) -> Iterator[Task]:
    """The tasks that the thing's own code and its examples solve; none where no verb says what."""
    does = _does(thing.about)
    if not does:
        return
    where = "" if thing.code else _where(thing.library)
    for solution in _solutions(thing):
        yield _task(thing, does, solution, where)


def _solutions(thing: Thing) -> Iterator[_Solution]:
    if thing.code:
        yield _Solution(thing.code)
        return
    before = ""
    for _, code in thing.examples:
        before = f"{before}\n{code}"
        solution = _from_example(before, thing.name)
        if solution is not None:
            yield solution


def _task(thing: Thing, does: str, solution: _Solution, where: str) -> Task:
    call = _call(solution.code)
    given = f" Use {', '.join(f'`{value}`' for value in solution.given)}." if solution.given else ""
    asked = [one.format(does=does, call=call, where=where) + given for one in _PHRASINGS]
    first = hashlib.sha256(f"{thing.name} {call}".encode()).digest()[0] % len(asked)
    names = ", ".join(f"`{name}`" for name in _used(solution.code)[:_MOST_NAMED])
    uses = f" It uses {names}." if names else ""
    answer = f"{_first(thing.about)}{uses}\n\n{fenced(solution.code)}"
    return Task((*asked[first:], *asked[:first]), answer)


def _where(library: str) -> str:
    name = library.partition(" ")[0]
    return _WHERE.get(name, f" with {name}")


# ---------------------------------------------------------------- what is said


def _first(about: str) -> str:
    """The first sentence, in one line; a paragraph without a stop is one."""
    said = " ".join(about.strip().partition("\n\n")[0].split())
    found = _SENTENCE.match(said)
    sentence = found[0] if found else f"{said.rstrip(':;,')}."
    return _MARKUP.sub(lambda part: f"`{part[1] or part[2]}`", sentence)


def _does(about: str) -> str:
    """`Returns the mean of data.` → `get the mean of data`; "" where no verb begins it."""
    said = _ITSELF.sub("", _first(about)).rstrip(".!?:")
    if not _SHORTEST <= len(said.split()) <= _LONGEST:
        return ""
    if said.startswith(_ARTICLES) and " is " not in said:
        return f"get {said[0].lower()}{said[1:]}"
    verb, _, rest = said.partition(" ")
    infinitive = _infinitive(verb.lower())
    if rest.startswith(("of ", "that ")) or infinitive not in _VERBS:
        return ""
    return f"{'get' if infinitive in _GIVES else infinitive} {rest}"


def _infinitive(verb: str) -> str:
    """`passes` → `pass`; "" for what is no verb that we know."""
    forms = [verb, *(verb.removesuffix(ending) for ending in ("s", "es") if verb.endswith(ending))]
    return next((form for form in forms if form in _VERBS), "")


# ---------------------------------------------------------------- what code says


def _call(code: str) -> str:
    """`mean(data, weights=None)`, of the last function in it."""
    function = [n for n in ast.parse(code).body if isinstance(n, ast.FunctionDef)][-1]
    return f"{function.name}({ast.unparse(function.args)})"


def _used(code: str) -> list[str]:
    """What the code imports or calls by a dotted name, in order."""
    found: list[str] = []
    for node in ast.walk(ast.parse(code)):
        match node:
            case ast.ImportFrom(module=str(module), names=names):
                found += [f"{module}.{alias.name}" for alias in names]
            case ast.Call(func=ast.Attribute(attr=name)) if not name.startswith("_"):
                found.append(name)
    return list(dict.fromkeys(found))


# ---------------------------------------------------------------- an example as a function


def _from_example(code: str, name: str) -> _Solution | None:
    """Its last line as a function of what it takes from the lines above; None where it is none."""
    tree = parsed(code)
    if tree is None or not tree.body or not isinstance(tree.body[-1], ast.Expr):
        return None
    shown, last = tree.body[-1].value, name.rpartition(".")[2]
    above = _assigned(tree.body[:-1])
    taken = [one for one in _names(shown) if one in above]
    imports = [_IMPORTS.get(one, "") for one in sorted(free(shown) - above)]
    if not taken or not all(imports) or not _is_about(shown, last):
        return None
    own = f"{last}_of" if last in taken else last
    text = f"def {own}({', '.join(taken)}):\n    return {ast.unparse(shown)}"
    lines = "\n".join([*imports, *([""] if imports else []), text])
    return _Solution(lines, tuple(_values(shown))[:_MOST_NAMED]) if parsed(lines) else None


def _assigned(lines: list[ast.stmt]) -> set[str]:
    nodes = (node for line in lines for node in ast.walk(line))
    return {n.id for n in nodes if isinstance(n, ast.Name) and isinstance(n.ctx, ast.Store)}


def _names(shown: ast.expr) -> list[str]:
    names = [node for node in ast.walk(shown) if isinstance(node, ast.Name)]
    return list(dict.fromkeys(n.id for n in sorted(names, key=lambda n: (n.lineno, n.col_offset))))


def _is_about(shown: ast.expr, name: str) -> bool:
    """Whether the documented thing is what it calls or asks for."""
    nodes = list(ast.walk(shown))
    return any(
        name == (n.attr if isinstance(n, ast.Attribute) else n.id)
        for n in nodes
        if isinstance(n, ast.Attribute | ast.Name)
    )


def _values(shown: ast.expr) -> Iterator[str]:
    """Arguments that are values, as they are written, each once."""
    calls = [node for node in ast.walk(shown) if isinstance(node, ast.Call)]
    given: list[tuple[ast.AST, ast.expr]] = [(a, a) for call in calls for a in call.args]
    given += [(k, k.value) for call in calls for k in call.keywords]
    texts = [ast.unparse(shown) for shown, value in given if _is_value(value)]
    yield from dict.fromkeys(text for text in texts if len(text) <= _LONGEST_VALUE)


def _is_value(node: ast.expr) -> bool:
    try:
        ast.literal_eval(node)
    except (ValueError, TypeError):
        return False
    return True
