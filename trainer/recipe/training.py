"""Knobs: the adapter's shape, how it is trained, and how its answers are decoded."""

from __future__ import annotations

from typing import Annotated, Literal, TypeAlias

import msgspec
from msgspec import Meta

Target: TypeAlias = Literal[
    "q_proj", "k_proj", "v_proj", "o_proj", "gate_proj", "up_proj", "down_proj"
]
Count: TypeAlias = Annotated[int, Meta(ge=1)]
Share: TypeAlias = Annotated[float, Meta(ge=0, le=1)]
Positive: TypeAlias = Annotated[float, Meta(gt=0)]


class LoraSettings(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """Shape of the adapter. What vLLM or TGI could not load cannot be said here."""

    rank: Literal[8, 16, 32, 64] = 16
    """Columns of A, rows of B. vLLM serves these ranks; 16 is its default limit, more needs
    `--max-lora-rank`. Rank hardly matters for 300 to 5,500 rows (Thinking Machines, "LoRA Without
    Regret", 2025)."""
    alpha: Count = 32
    """The update is scaled by alpha / rank; 2 × rank, so that rank can be changed alone (Biderman
    et al., "LoRA Learns Less and Forgets Less", 2024)."""
    dropout: Share = 0.0
    """Share of A's inputs that are zeroed, 0 to 1. None: with one or two passes there is little to
    memorise, and Unsloth is faster without."""
    targets: tuple[Target, ...] = (
        "q_proj",
        "k_proj",
        "v_proj",
        "o_proj",
        "gate_proj",
        "up_proj",
        "down_proj",
    )
    """Linear layers that are adapted. All seven: attention alone learns less at the same size
    (Thinking Machines, "LoRA Without Regret", 2025)."""
    rslora: bool = False
    """Whether the update is scaled by alpha / sqrt(rank) instead. Off; matters at high ranks."""


class TrainingSettings(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """How it is trained."""

    engine: Literal["peft", "unsloth"] = "peft"
    """Who runs the layers: transformers and PEFT anywhere, or Unsloth's kernels (its own extra).
    Both get the same token ids and labels."""
    precision: Literal["auto", "bf16", "fp32", "nf4"] = "auto"
    """How the frozen base is held. `auto`: bf16 where processor or GPU compute with it, else fp32.
    `nf4`: 4 bits, double quantised (Dettmers et al., "QLoRA", 2023)."""
    optimizer: Literal["adamw", "adamw_8bit"] = "adamw"
    """`adamw_8bit` (bitsandbytes) holds the moments in 8 bits; worth it for large adapters."""
    learning_rate: Positive = 5e-4
    """Peak. Chosen for 135 M parameters; 1e-4 to 2e-4 suits 8 B (Hammer 5e-5, Unsloth 2e-4)."""
    schedule: Literal["cosine", "linear", "constant"] = "cosine"
    """How the rate falls after the warm-up."""
    final_rate: Share = 0.1
    """Where it ends, as a share of the peak. Chosen: the last steps still learn."""
    warmup: Share = 0.06
    """Share of the steps in which the rate rises. 5 to 10 % is usual."""
    warmup_steps: Annotated[int, Meta(ge=0)] | None = None
    """The same in steps; where it is given, `warmup` says nothing."""
    epochs: Count = 1
    """Passes over the examples. Usual: 3 for 300 rows, 2 for 1 to 5 thousand, 1 for more than ten
    thousand. The dataset's `copies` are passes, too."""
    max_steps: Count | None = None
    """Optimizer steps after which training ends, whatever `epochs` says; None: no limit."""
    batch_tokens: Count = 4096
    """Tokens in one optimizer step, padding included. 8 to 16 rows of some 400 tokens: LoRA loses
    ground with more than 32 rows (Thinking Machines, 2025)."""
    micro_tokens: Count = 2048
    """Tokens in one forward pass, padding included; bounds the memory."""
    batch_rows: Count | None = None
    """Rows in one optimizer step; where it is given, `batch_tokens` says nothing."""
    micro_rows: Count | None = None
    """Rows in one forward pass; where it is given, `micro_tokens` says nothing."""
    max_tokens: Count = 1024
    """Longer examples are dropped, never cut: a cut answer teaches to stop early."""
    max_dropped: Share = 0.1
    """Preflight fails when a larger share of the examples is too long. Chosen: beyond that the
    adapter would not know its domain's long requests."""
    weight_decay: Annotated[float, Meta(ge=0)] = 0.01
    """Of AdamW, on A and B. PyTorch's default."""
    clip: Positive = 1.0
    """Largest norm of the gradient."""
    gradient_checkpointing: bool = False
    """Whether activations are computed again instead of kept: a third slower, a fraction of the
    memory. Switched on by itself when memory runs out and the micro-batch cannot be halved."""
    checkpoint_every: Count = 50
    """Steps between checkpoints from which a run can be resumed."""
    validate_every: Annotated[int, Meta(ge=0)] = 0
    """Steps between generations on the validation rows, of which the best checkpoint is kept; 0:
    the last one is. A generation costs about a second a row on a CPU."""
    patience: Count = 3
    """Validations without a better one after which training ends early."""


class DecodingSettings(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """How answers are decoded where the recipe's adapter is validated and measured."""

    max_new_tokens: Count = 256
    """Tokens of an answer, at most. A call of the pitch is far shorter."""
    temperature: Annotated[float, Meta(ge=0, le=2)] = 0.0
    """0: greedy, as tool calls should be; the same question gives the same call."""
    top_p: Annotated[float, Meta(gt=0, le=1)] = 1.0
    """Share of the probability from which is drawn; says nothing at temperature 0."""
    repetition_penalty: Annotated[float, Meta(ge=1, le=2)] = 1.0
    """Above 1 tokens of the prompt and the answer so far become less likely. 1: calls repeat the
    prompt's words on purpose."""


class PreferenceSettings(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """How an adapter learns from preferences, after it was trained."""

    learning_rate: Positive = 5e-6
    """Peak. 5e-6 to 1e-5 is usual for DPO on a LoRA: a tenth of what the training before took."""
    beta: Positive = 0.1
    """How far it may go from the adapter that it was; higher is nearer (Rafailov et al., "DPO",
    2023)."""
    sft: Annotated[float, Meta(ge=0)] = 0.2
    """Weight of the chosen answers' own likelihood in DPO's loss, which keeps exact matches from
    drifting. Chosen."""
    epochs: Count = 1
    """Passes over the pairs."""
    batch_rows: Count = 8
    """Pairs in one optimizer step."""
    micro_rows: Count = 2
    """Pairs in one forward pass."""
    least: Count = 100
    """Pairs below which it is not worth running. Chosen: fewer were noise in others' reports."""


class DistilSettings(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """A teacher on this machine, from whose logits the adapter learns beside the labels."""

    teacher: str
    """Base model, named as `base_model` is; its vocabulary must be the student's."""
    adapter: str | None = None
    """Path of a bundle that the teacher wears; None: the bare base. Only one that passed its gate
    has something to teach."""
    weight: Share = 0.5
    """Of the teacher against the labels, 0 to 1. Chosen: both count alike."""
    temperature: Positive = 1.0
    """Above 1 the teacher's second thoughts count for more. 1: labels of tool calls are sharp."""
    precision: Literal["auto", "bf16", "fp32", "nf4"] = "auto"
    """How the teacher is held."""
