"""Knobs: where the rows come from."""

from __future__ import annotations

from typing import Literal

import msgspec


class SourceSettings(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """Where the rows come from."""

    kind: Literal["bfcl"]
    categories: list[str]
    """BFCL categories, e.g. `live_multiple`; irrelevance categories give the negatives."""
    tools: tuple[str, ...] = ("*",)
    """Globs over tool names; a row is taken when one of its tools matches."""
    without: tuple[str, ...] = ()
    """Globs; a row is left out when one of its tools matches."""
