"""An adapter's model card, in Markdown with Hugging Face front matter."""

from __future__ import annotations

from collections.abc import Sequence

import msgspec

from proxy.protocol.adapter import Manifest
from proxy.protocol.formats import FORMATS
from trainer.evaluate import Report

_FIGURES = (
    "call exact",
    "call match",
    "tool name",
    "tool choice",
    "valid JSON",
    "missed calls",
    "false calls",
)

_BY_TOOL = """\
They are split by tool: *seen* are other questions about tools of the training, *unseen* are
questions about tools that training never showed. Related functions under other names may stand on
both sides."""
_SINGLE = """\
Single calls only. It was never trained on tool results, so that the turn after a call belongs to
another model. Where no tool fits it answers with one fixed sentence."""


def card(
    manifest: Manifest, rows: dict[str, int], reports: Sequence[Report] = (), note: str = ""
) -> str:
    """What someone who is about to use the adapter should know. `note`: how else it was made."""
    return f"""---
license: apache-2.0
library_name: peft
base_model: {manifest.base_model}
---
# {manifest.id}

A LoRA adapter of {manifest.base_model} for the domain `{manifest.domain}`, format
`{manifest.format}`. Trained by `headrace-trainer train` with the recipe in `manifest.json`,
seed {manifest.seed}, on {rows["train"]} examples; dataset `{manifest.dataset_fingerprint[:23]}`.

{_origin(manifest, note)}

{_figures(reports) or "Not evaluated yet: `headrace-trainer evaluate`."}

## Limits

{_limits(manifest)}
"""


def _origin(manifest: Manifest, note: str) -> str:
    recipe = msgspec.json.decode(manifest.recipe)
    sources = recipe.get("sources", []) if isinstance(recipe, dict) else []
    read = [f"{one['kind']} ({one.get('license', 'Apache-2.0')})" for one in sources]
    told = [f"Rows are read from: {', '.join(read)}."] if read else []
    if manifest.tool_fingerprints:
        told.append(_BY_TOOL)
    return "\n\n".join([*told, note] if note else told)


def _limits(manifest: Manifest) -> str:
    if not manifest.tool_fingerprints:
        return "It answers in words, and was never trained to call a tool."
    if FORMATS[manifest.format].many:
        return "What its rows do not show, it was not trained for."
    return _SINGLE


def _figures(reports: Sequence[Report]) -> str:
    """A table, figures in rows, models in columns; intervals are 95 % Wilson."""
    if not reports:
        return ""
    heads = [f"{report.subject}, {report.side}" for report in reports]
    lines = [f"| | {' | '.join(heads)} |", "|---" * (len(heads) + 1) + "|"]
    for name in _FIGURES:
        lines.append(f"| {name} | {' | '.join(str(r.figures[name]) for r in reports)} |")
    return "\n".join(
        [
            "## Figures",
            "",
            "As served by the embedded engine (8 bit, constrained, greedy).",
            "",
            *lines,
        ]
    )
