"""Knobs: which rows are kept, on which side, and what else they offer."""

from __future__ import annotations

import msgspec


class SplitSettings(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """What is held out. Sides are chosen by hash, so that a row stays on its side as data grow."""

    unseen_tools: float = 0.2
    """Share of tool names that training never shows, not even as a tool not to choose."""
    seen: float = 0.15
    """Share of the other questions that are kept for testing on tools that training does show."""
    validation: int = 24
    """Rows of the training side on which progress is watched."""


class VarietySettings(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """How one row becomes several examples that differ in what else is on offer."""

    copies: int = 2
    """Examples made of a row, each with its own distractors and order. The run passes once over
    all of them, so that this is also the number of epochs. Chosen: usual for 1–5 k rows."""
    distractors: int = 4
    """At most so many tools beside the right one. Real requests offer several; an adapter that saw
    one tool a row did not learn to choose (docs/LOG.md)."""
    unrelated: float = 0.05
    """Share of extra examples in which the right tool is gone and only unrelated ones are left."""
    negative_distractors: int = 0
    """At most so many unrelated tools are added where nothing must be called. Source rows of that
    kind often offer a single tool: left so, the model learns that a single tool never fits."""
    negatives: float = 0.3
    """At most this share of the examples, the unrelated ones aside, are ones where nothing must be
    called. More of them make a model that calls too rarely (docs/LOG.md)."""
