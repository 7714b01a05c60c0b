"""A recipe: every knob of a run, with unit and source. An unknown key is an error with its path."""

from __future__ import annotations

from pathlib import Path
from typing import Literal

import msgspec
import yaml

from trainer.errors import RecipeError


class SourceSettings(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """Where the rows come from."""

    kind: Literal["bfcl"]
    categories: list[str]
    """BFCL categories, e.g. `live_multiple`; irrelevance categories give the negatives."""
    tools: tuple[str, ...] = ("*",)
    """Globs over tool names; a row is taken when one of its tools matches."""
    without: tuple[str, ...] = ()
    """Globs; a row is left out when one of its tools matches."""


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


class LoraSettings(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """Shape of the adapter."""

    rank: Literal[8, 16, 32, 64] = 16
    """Columns of A, rows of B. vLLM serves these ranks; 16 is its default limit."""
    alpha: int = 32
    """The update is scaled by alpha / rank; 2 × rank, so that rank can be changed alone."""
    dropout: float = 0.0
    """0–1. None: with one or two passes there is little to memorise."""
    targets: tuple[str, ...] = (
        "q_proj",
        "k_proj",
        "v_proj",
        "o_proj",
        "gate_proj",
        "up_proj",
        "down_proj",
    )
    """All seven linears: attention alone learns less at the same size (Thinking Machines,
    "LoRA Without Regret", 2025)."""


class TrainingSettings(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """How it is trained."""

    learning_rate: float = 5e-4
    """Peak of AdamW; after the warm-up it falls along a cosine to a tenth. Chosen for 135 M
    parameters; 1e-4 to 2e-4 suits 8 B."""
    warmup: float = 0.06
    """Share of the steps."""
    batch_tokens: int = 4096
    """Tokens in one optimizer step, padding included."""
    micro_tokens: int = 2048
    """Tokens in one forward pass, padding included; bounds the memory."""
    max_tokens: int = 1024
    """Longer examples are dropped, never cut: a cut answer teaches to stop early."""
    weight_decay: float = 0.01
    clip: float = 1.0
    """Largest norm of the gradient."""


class Recipe(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """A run, from source to bundle."""

    domain: str
    base_model: str = "smollm2-135m-instruct"
    format: Literal["structured", "hermes"]
    template: str
    """Template to freeze into the bundle, one of proxy/protocol/formats/templates."""
    source: SourceSettings
    split: SplitSettings = SplitSettings()
    variety: VarietySettings = VarietySettings()
    lora: LoraSettings = LoraSettings()
    training: TrainingSettings = TrainingSettings()
    seed: int = 0


def read(path: Path) -> Recipe:
    """The recipe in a YAML file; raises RecipeError with the file and the field."""
    try:
        return msgspec.convert(yaml.safe_load(path.read_text()), Recipe)
    except OSError as error:
        raise RecipeError(f"{path}: {error.strerror}") from error
    except (yaml.YAMLError, msgspec.ValidationError, UnicodeDecodeError) as error:
        raise RecipeError(f"{path}: {error}") from error
