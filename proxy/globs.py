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


class Glob(NamedTuple):
    """What claims tools for a domain."""

    place: int
    """In the order of the file: the first that fits counts."""
    pattern: re.Pattern[str]
    domain: str


def is_glob(tool: str) -> bool:
    """Whether a tool's name has any of the signs of a glob: `*`, `?`, `[`."""
    return any(sign in tool for sign in _SIGNS)


class Globs:
    """Globs, each with its place and domain. Made once, immutable."""

    def __init__(self, globs: Iterable[tuple[int, str, str]]) -> None:
        """Place, glob and domain of each."""
        self._by_beginning: dict[str, list[Glob]] = defaultdict(list)
        for place, glob, domain in globs:
            known = Glob(place, re.compile(translate(glob)), domain)
            self._by_beginning[_beginning(glob)].append(known)
        self._lengths = {len(beginning) for beginning in self._by_beginning}

    def first(self, name: str) -> Glob | None:
        """The first glob that fits; None where none does."""
        beginnings = {name[:length] for length in self._lengths}
        fitting = [
            glob
            for beginning in beginnings & self._by_beginning.keys()
            for glob in self._by_beginning[beginning]
            if glob.pattern.match(name)
        ]
        return min(fitting, key=_place, default=None)


def _place(glob: Glob) -> int:
    return glob.place


def _beginning(glob: str) -> str:
    """What every name that fits begins with."""
    found = _LITERAL.match(glob)
    return found[0] if found else ""
