"""A documented thing, whoever documents it."""

from __future__ import annotations

import msgspec


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
    code: str = ""
    """What it is made of, where that stands alone; else empty."""
    source: str
    license: str
