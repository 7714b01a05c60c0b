"""Which domain a tool belongs to: a schema's fingerprint says it, a name, or a glob."""

from __future__ import annotations

import re
from collections.abc import Iterable
from typing import Literal, NamedTuple

from proxy.globs import Globs, is_glob

_SIGN = "sha256:"
_FINGERPRINT = re.compile(r"sha256:[0-9a-f]{64}")


class Claimed(NamedTuple):
    """One tool of a domain."""

    place: int
    """Of the domain in the file: where globs overlap, the first one counts."""
    tool: str
    """Name, glob or fingerprint."""
    domain: str


class Claim(NamedTuple):
    """Who a name belongs to, and why."""

    place: int
    domain: str
    reason: Literal["exact", "glob"]


class Claims:
    """The tools of some domains. Made once, immutable."""

    def __init__(self, tools: Iterable[Claimed]) -> None:
        globs: list[Claimed] = []
        self.exact: dict[str, Claim] = {}
        self.fingerprints: dict[str, str] = {}
        """Fingerprint → domain."""
        for claimed in tools:
            if is_fingerprint(claimed.tool):
                self.fingerprints[claimed.tool] = claimed.domain
            elif is_glob(claimed.tool):
                globs.append(claimed)
            else:
                self.exact[claimed.tool] = Claim(claimed.place, claimed.domain, "exact")
        self._globs = Globs(globs)

    def by_glob(self, name: str) -> Claim | None:
        """The first glob's claim."""
        found = self._globs.first(name)
        return None if found is None else Claim(found.place, found.domain, "glob")


def is_fingerprint(tool: str) -> bool:
    """Whether it is meant to be a fingerprint, and no name or glob."""
    return tool.startswith(_SIGN)


def is_sound(tool: str) -> bool:
    """Whether a tool that is meant to be a fingerprint is one; names and globs are."""
    return not is_fingerprint(tool) or _FINGERPRINT.fullmatch(tool) is not None


def may_overlap(tool: str) -> bool:
    """Whether two domains may claim it: globs may overlap."""
    return not is_fingerprint(tool) and is_glob(tool)
