"""Knobs: where the rows come from. `kind` says which source, the other keys are that source's."""

from __future__ import annotations

from typing import TypeAlias

import msgspec


class BfclSettings(
    msgspec.Struct,
    frozen=True,
    kw_only=True,
    forbid_unknown_fields=True,
    tag_field="kind",
    tag="bfcl",
):
    """The installed package `bfcl-eval`."""

    categories: list[str]
    """BFCL categories, e.g. `live_multiple`; irrelevance categories give the negatives."""
    tools: tuple[str, ...] = ("*",)
    """Globs over tool names; a row is taken when one of its tools matches."""
    without: tuple[str, ...] = ()
    """Globs; a row is left out when one of its tools matches."""


SourceSettings: TypeAlias = BfclSettings
"""Any one of them."""
