"""Jinja for templates that come from outside: nothing of Python's, and a bound on work and memory.

A template is a program. Jinja's own sandbox keeps it from Python's objects, and lets it run for
ever or fill the memory. Here each turn of a loop, each call and each piece of text is paid for out
of one budget a rendering; what could be large is measured before it is made.
"""

from __future__ import annotations

import contextvars
import time
from collections.abc import Callable, Iterable, Iterator, Mapping
from typing import Any

from jinja2 import Template, nodes
from jinja2.exceptions import SecurityError
from jinja2.sandbox import ImmutableSandboxedEnvironment
from jinja2.visitor import NodeTransformer

MAX_STEPS = 1_000_000
"""Turns of loops, calls, and sixty-fours of characters of one rendering. Chosen: 1000 tools with
twenty parameters each take a third of it."""
MAX_TEXT = 8 * 1024 * 1024
"""Characters of a prompt, or of any text on the way to it. Chosen: no local model reads as many."""
MAX_SECONDS = 10.0
"""Seconds of one rendering, should single steps be dear. Chosen: a prompt takes milliseconds."""
MAX_SOURCE = 256 * 1024
"""Characters of a template. Chosen: ten times the longest that any model family has."""

_FILTERS = frozenset({
    "abs", "capitalize", "count", "d", "default", "dictsort", "first", "float", "groupby", "int",
    "items", "join", "last", "length", "list", "lower", "map", "max", "min", "reject", "rejectattr",
    "replace", "reverse", "select", "selectattr", "sort", "string", "title", "trim", "unique",
    "upper",
})  # fmt: skip
"""Those that chat templates use; none that pads or formats by a width."""
_OF_TEXTS = frozenset({
    "capitalize", "count", "endswith", "find", "index", "isalnum", "isalpha", "isdigit", "islower",
    "isspace", "isupper", "join", "lower", "lstrip", "removeprefix", "removesuffix", "replace",
    "rfind", "rsplit", "rstrip", "split", "splitlines", "startswith", "strip", "title", "upper",
})  # fmt: skip
"""A text's methods that may be called."""
_CHARACTERS = 64
"""Characters that cost as much as one step."""
_STEPS_A_LOOK = 100
"""Steps between two looks at the budget and the clock."""


class TooCostly(SecurityError):
    """A template takes more work, or makes more text, than a prompt can need."""


class _Budget:
    def __init__(self) -> None:
        self._steps = MAX_STEPS
        self._next_look = MAX_STEPS
        self._until = time.monotonic() + MAX_SECONDS

    def spend(self, characters: int = 0) -> None:
        """Pay for one step that makes or reads so many characters; raises TooCostly."""
        self._steps -= 1 + characters // _CHARACTERS
        if self._steps < self._next_look or characters > MAX_TEXT:
            self._look(characters)

    def _look(self, characters: int) -> None:
        self._next_look = self._steps - _STEPS_A_LOOK
        if characters > MAX_TEXT or self._steps < 0 or time.monotonic() > self._until:
            raise TooCostly("the template takes more work or text than a prompt can need")

    def weigh(self, value: object) -> int:
        """Pay for a value that is to be written out; its texts' characters."""
        match value:
            case str():
                size = len(value)
            case Mapping():
                size = sum(self.weigh(k) + self.weigh(v) for k, v in value.items())
            case list() | tuple() | set():
                size = sum(map(self.weigh, value))
            case _:
                size = 0
        self.spend(size)
        return size


_budget: contextvars.ContextVar[_Budget] = contextvars.ContextVar("budget")


def rendered(template: Template, **values: object) -> str:
    """A template's text; raises whatever a template may raise, TooCostly among it."""
    before = _budget.set(_Budget())
    try:
        return template.render(**values)
    finally:
        _budget.reset(before)


class Sandbox(ImmutableSandboxedEnvironment):
    """Compiles templates that cannot do harm; their texts are made by `rendered`."""

    intercepted_binops = frozenset({"+", "*", "**", "%"})

    def __init__(self, tojson: Callable[[object], str]) -> None:
        super().__init__(trim_blocks=True, lstrip_blocks=True, finalize=_shown)
        kept = {name: _paid(self.filters[name]) for name in _FILTERS}
        own = {"tojson": lambda value: tojson(_weighed(value)), "joined": _joined}
        self.filters = {**kept, **own, "counted": _counted, "weighed": _weighed}
        self.globals = {
            "range": self.globals["range"],
            "dict": lambda **items: _weighed(items),
            "namespace": self.globals["namespace"],
        }
        self.concat = _concat  # type: ignore[method-assign]

    def made(self, source: str) -> Template:
        """The compiled template; raises TemplateError, TooCostly among it, and RecursionError."""
        before = _budget.set(_Budget())
        try:
            if len(source) > MAX_SOURCE:
                raise TooCostly(f"the template is longer than {MAX_SOURCE} characters")
            tree = _Counting().visit(self.parse(source))
            return Template.from_code(self, self.compile(tree), self.make_globals(None))
        finally:
            _budget.reset(before)

    def is_safe_attribute(self, obj: Any, attr: str, value: Any) -> bool:
        if isinstance(obj, str):
            return attr in _OF_TEXTS
        return super().is_safe_attribute(obj, attr, value)

    def wrap_str_format(self, value: Any) -> None:
        """`"…".format` is none of the methods above: it pads to any width."""

    def call(__self, __context: Any, __obj: Any, *args: Any, **kwargs: Any) -> Any:  # noqa: N805
        _budget.get().spend()
        owner, name = getattr(__obj, "__self__", None), getattr(__obj, "__name__", "")
        if isinstance(owner, str):
            _foresee(name, owner, args)
        return _noted(super().call(__context, __obj, *args, **kwargs))

    def call_binop(self, context: Any, operator: str, left: Any, right: Any) -> Any:
        if operator == "+":
            _budget.get().spend(_length(left) + _length(right))
        elif not (isinstance(left, int | float) and isinstance(right, int | float)):
            raise TooCostly(f"{operator!r} is for numbers")
        elif max(abs(left), abs(right)) > 2**64 or (operator == "**" and abs(right) > 64):
            raise TooCostly(f"{operator!r} of numbers that large")
        return super().call_binop(context, operator, left, right)


class _Counting(NodeTransformer):
    """Has each loop pay for its turns, each `~` for its text, and each list for all that is in it.

    Without the last, lists of a list twice would double with each turn, and comparing two of them
    could not be stopped.
    """

    def visit_For(self, node: nodes.For) -> nodes.Node:  # noqa: N802
        self.generic_visit(node)
        node.iter = _filtered(node.iter, "counted")
        return node

    def visit_Concat(self, node: nodes.Concat) -> nodes.Node:  # noqa: N802
        self.generic_visit(node)
        return _filtered(nodes.List(node.nodes, lineno=node.lineno), "joined")

    def visit_List(self, node: nodes.List | nodes.Dict) -> nodes.Node:  # noqa: N802
        self.generic_visit(node)
        return _filtered(node, "weighed")

    visit_Dict = visit_List  # noqa: N815

    def visit_Tuple(self, node: nodes.Tuple) -> nodes.Node:  # noqa: N802
        self.generic_visit(node)
        return _filtered(node, "weighed") if node.ctx == "load" else node


def _filtered(node: nodes.Node, name: str) -> nodes.Filter:
    return nodes.Filter(node, name, [], [], None, None, lineno=node.lineno)


def _counted(values: Iterable[object]) -> Iterator[object]:
    budget = _budget.get()
    for value in values:
        budget.spend()
        yield value


def _concat(parts: Iterable[str]) -> str:
    known = list(parts)
    _budget.get().spend(sum(map(len, known)))
    return "".join(known)


def _joined(parts: list[object]) -> str:
    return _concat(map(str, _weighed(parts)))


def _shown(value: Any) -> Any:
    """A value that the template writes. A text is paid for with all others, by `_concat`."""
    return value if value.__class__ is str else _weighed(value)


def _weighed(value: Any) -> Any:
    """A value that is about to become text, or has just been made."""
    _budget.get().weigh(value)
    return value


def _noted(value: Any) -> Any:
    length = _length(value)
    if length > _CHARACTERS:
        _budget.get().spend(length)
    return value


def _length(value: object) -> int:
    return len(value) if isinstance(value, str | list | tuple | dict) else 0


def _paid(function: Callable[..., Any]) -> Callable[..., Any]:
    """A filter that pays for what it is given and for what it makes."""
    passes = [name for name in ("jinja_pass_arg",) if hasattr(function, name)]
    place = len(passes)

    def paid(*args: Any, **kwargs: Any) -> Any:
        value = args[place]
        if function.__name__ in ("do_join", "sync_do_join", "soft_str"):
            _budget.get().weigh(value)
        _foresee(function.__name__, value, args[place + 1 :])
        return _noted(function(*args, **kwargs))

    for name in passes:
        setattr(paid, name, getattr(function, name))
    return paid


def _foresee(name: str, value: object, args: tuple[Any, ...]) -> None:
    """Pay for the text that is made of a text and of others, before it is made."""
    texts = [one for one in args if isinstance(one, str)]
    if name in ("replace", "do_replace") and isinstance(value, str) and len(texts) == 2:
        _budget.get().spend(len(value) + value.count(texts[0]) * len(texts[1]))
    elif name == "join" and args:
        _budget.get().spend(_budget.get().weigh(list(args[0])) + len(str(value)) * len(args[0]))
