"""Globs of tool names, of which the first that fits counts: found by what they begin with, so that
a thousand of them are not tried one by one."""

from __future__ import annotations

import re
from collections import defaultdict
from collections.abc import Iterable
from fnmatch import translate
from typing import NamedTuple

_SIGNS = "*?["
_LITERAL = re.compile(rf"[^{re.escape(_SIGNS)}]*")


class _Glob(NamedTuple):
    place: int
    """In the order in which they were given."""
    pattern: re.Pattern[str]
    domain: str


def is_glob(tool: str) -> bool:
    """Whether a tool's name has any of the signs of a glob: `*`, `?`, `[`."""
    return any(sign in tool for sign in _SIGNS)


class Globs:
    """Globs with the domain of each. Made once, immutable."""

    def __init__(self, globs: Iterable[tuple[str, str]]) -> None:
        self._by_beginning: dict[str, list[_Glob]] = defaultdict(list)
        for place, (glob, domain) in enumerate(globs):
            pattern = re.compile(translate(glob))
            self._by_beginning[_beginning(glob)].append(_Glob(place, pattern, domain))
        self._lengths = {len(beginning) for beginning in self._by_beginning}

    def domain(self, name: str) -> str | None:
        """The domain of the first glob that fits; None where none does."""
        beginnings = {name[:length] for length in self._lengths}
        fitting = [
            glob
            for beginning in beginnings & self._by_beginning.keys()
            for glob in self._by_beginning[beginning]
            if glob.pattern.match(name)
        ]
        return min(fitting).domain if fitting else None


def _beginning(glob: str) -> str:
    """What every name that fits begins with."""
    found = _LITERAL.match(glob)
    return found[0] if found else ""
