"""Where in a YAML text something is: lines and columns of what a complaint names by its path.

A path is `$.domains.chat.plan[1]`, as our complaints begin with one; an unknown field is the key
itself, and what is missing is where it ought to be.
"""

from __future__ import annotations

import re
from typing import NamedTuple

import yaml

_FIELD = re.compile(r"unknown field `([^`]+)`")
_INDEX = re.compile(r"\[(\d+)\]")


class Position(NamedTuple):
    """Counted from 1, as editors do."""

    line: int
    column: int


def position(text: str, complaint: str) -> Position | None:
    """Where the text is wrong that a complaint is about; None where it does not say."""
    if not complaint.startswith("$"):
        return None
    try:
        root = yaml.compose(text, yaml.SafeLoader)
    except yaml.YAMLError:
        return None
    if root is None:
        return Position(1, 1)
    found, key = _walked(root, complaint[1:])
    field = _FIELD.search(complaint)
    if field is not None and isinstance(found, yaml.MappingNode):
        key = next((k for k, _ in found.value if k.value == field[1]), key)
    # Of a section its name is what one looks for; of anything else what is wrong.
    named = key if isinstance(found, yaml.MappingNode) or field else None
    mark = (named or found).start_mark
    return Position(mark.line + 1, mark.column + 1)


def _walked(node: yaml.Node, rest: str) -> tuple[yaml.Node, yaml.Node | None]:
    """The node at the end of a path, or as far as it goes; and the key that led there, if any."""
    key: yaml.Node | None = None
    while True:
        index = _INDEX.match(rest)
        if isinstance(node, yaml.SequenceNode) and index and int(index[1]) < len(node.value):
            node, key, rest = node.value[int(index[1])], None, rest[index.end() :]
            continue
        step = _step(node, rest)
        if step is None:
            return node, key
        key, node = step
        rest = rest[1 + len(key.value) :]


def _step(node: yaml.Node, rest: str) -> tuple[yaml.ScalarNode, yaml.Node] | None:
    """The entry of a mapping that a path goes on with; its key may have dots, so the longest."""
    if not isinstance(node, yaml.MappingNode):
        return None
    fitting = [
        (key, value)
        for key, value in node.value
        if isinstance(key, yaml.ScalarNode)
        and re.match(rf"\.{re.escape(key.value)}(?=[.\[: ]|$)", rest)
    ]
    return max(fitting, key=lambda entry: len(entry[0].value), default=None)
