"""Knobs: the adapter's shape, and how it is trained."""

from __future__ import annotations

from typing import Literal

import msgspec


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
