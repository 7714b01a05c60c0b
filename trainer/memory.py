"""How much memory and disk a run takes, from the shapes of the layers. An estimate, not a promise.

Activations are what varies most: kept are, for each token and layer, the inputs of the seven
linears, what attention and the gate need again, and the LoRA's own.
"""

from __future__ import annotations

import functools
import random
from collections.abc import Sequence
from pathlib import Path
from typing import NamedTuple

import msgspec
from gguf import GGUFReader

from proxy.protocol.base_model import BaseModel, BaseModelError, DirectoryModel
from trainer.batches import Size, steps
from trainer.recipe import Recipe
from trainer.tokens import Example

_RUNTIME = 700 << 20
"""Bytes that Python, PyTorch and a GPU's context take. Chosen from runs, rounded up."""
_PROCESSOR = 2.5
"""On a processor the allocator keeps what was freed and oneDNN its kernels for each shape: 5.7 GB
at most where the shapes alone say 2.8 (docs/LOG.md)."""


class Shape(msgspec.Struct, frozen=True, kw_only=True):
    """A Llama-like model: grouped-query attention, a gated MLP. Read from config.json."""

    num_hidden_layers: int
    hidden_size: int
    intermediate_size: int
    num_attention_heads: int
    num_key_value_heads: int
    vocab_size: int
    head_dim: int | None = None
    tie_word_embeddings: bool = False

    @property
    def linears(self) -> dict[str, tuple[int, int]]:
        """The adapted layers of one block, each (inputs, outputs)."""
        hidden, mlp = self.hidden_size, self.intermediate_size
        head = self.head_dim or hidden // self.num_attention_heads
        q, kv = head * self.num_attention_heads, head * self.num_key_value_heads
        return {
            "q_proj": (hidden, q),
            "k_proj": (hidden, kv),
            "v_proj": (hidden, kv),
            "o_proj": (q, hidden),
            "gate_proj": (hidden, mlp),
            "up_proj": (hidden, mlp),
            "down_proj": (mlp, hidden),
        }


class Needed(NamedTuple):
    """Bytes."""

    whole: int
    """With the recipe's micro-batches."""
    smallest: int
    """With one row at a time and activations computed again: the last rung of the ladder."""


def shape(base: BaseModel) -> Shape:
    """The base's shape, from its metadata; raises BaseModelError where it has none."""
    if isinstance(base, DirectoryModel):
        path = base.directory / "config.json"
        try:
            return msgspec.json.decode(path.read_bytes(), type=Shape)
        except (OSError, msgspec.MsgspecError) as error:
            raise BaseModelError(f"{path}: {error}; only Llama-like models are trained") from error
    return _of_gguf(base.gguf)


@functools.lru_cache(maxsize=4)
def _of_gguf(path: Path) -> Shape:
    """Kept, since reading a GGUF's metadata takes some 4 s."""
    reader = GGUFReader(path)
    return Shape(
        num_hidden_layers=_field(reader, "block_count"),
        hidden_size=_field(reader, "embedding_length"),
        intermediate_size=_field(reader, "feed_forward_length"),
        num_attention_heads=_field(reader, "attention.head_count"),
        num_key_value_heads=_field(reader, "attention.head_count_kv"),
        vocab_size=_field(reader, "vocab_size"),
        tie_word_embeddings=all(tensor.name != "output.weight" for tensor in reader.tensors),
    )


def estimate(shape: Shape, recipe: Recipe, examples: Sequence[Example]) -> Needed:
    """What training on these examples takes at most."""
    fixed = _RUNTIME + _base(shape, recipe) + _adapter(shape, recipe)
    settings = recipe.training
    micros = [
        (len(micro), max(len(e.ids) for e in micro), sum(len(e.completion) for e in micro))
        for micro in _micros(recipe, examples)
    ]
    again = settings.gradient_checkpointing
    width = 4 if settings.precision == "fp32" else 2
    most = max(
        (_activations(shape, n * length, width, again) + _logits(shape, said))
        for n, length, said in micros
    )
    slack = 1.0 if _has_gpu() else _PROCESSOR
    longest = max(examples, key=lambda e: len(e.ids))
    least = _activations(shape, len(longest.ids), width, True)
    least += _logits(shape, len(longest.completion))
    return Needed(fixed + round(slack * most), fixed + round(slack * least))


def disk(shape: Shape, recipe: Recipe) -> int:
    """Bytes that a run writes: two checkpoints (one while the other is replaced) of adapter, best
    adapter and moments in fp32, and the adapter itself."""
    return _trained(shape, recipe) * (2 * 4 * 4 + 2 * 2)


def available() -> tuple[int, str]:
    """Bytes that a run may take, and of what: the first GPU's, or this machine's memory."""
    if _has_gpu():
        import torch

        return int(torch.cuda.mem_get_info()[0]), torch.cuda.get_device_name()
    for line in Path("/proc/meminfo").read_text().splitlines():
        if line.startswith("MemAvailable:"):
            return min(int(line.split()[1]) * 1024, _group_limit()), "this machine's memory"
    return _group_limit(), "this machine's memory"


def _has_gpu() -> bool:
    import torch

    return torch.cuda.is_available()


def _group_limit() -> int:
    """What a container is allowed to take."""
    path = Path("/sys/fs/cgroup/memory.max")
    text = path.read_text().strip() if path.exists() else "max"
    return int(text) if text.isdigit() else 1 << 62


def _micros(recipe: Recipe, examples: Sequence[Example]) -> list[list[Example]]:
    settings = recipe.training
    micro = Size(settings.micro_tokens, settings.micro_rows or 0)
    planned = steps(examples, micro, Size(tokens=1), random.Random(recipe.seed))
    return [one for step in planned for one in step]


def _trained(shape: Shape, recipe: Recipe) -> int:
    """Parameters of the adapter."""
    shapes = [shape.linears[name] for name in recipe.lora.targets]
    return recipe.lora.rank * shape.num_hidden_layers * sum(i + o for i, o in shapes)


def _base(shape: Shape, recipe: Recipe) -> int:
    linear = shape.num_hidden_layers * sum(i * o for i, o in shape.linears.values())
    others = shape.vocab_size * shape.hidden_size * (1 if shape.tie_word_embeddings else 2)
    match recipe.training.precision:
        case "nf4":
            # Blocks of 64 with a scale of 8 bits each; and one layer, dequantised, at work.
            largest = max(i * o for i, o in shape.linears.values())
            return linear // 2 + linear // 64 + 2 * others + 2 * largest
        case "fp32":
            return 4 * (linear + others)
        case _:
            return 2 * (linear + others)


def _adapter(shape: Shape, recipe: Recipe) -> int:
    """Adapter and gradient in 16 bits; copy, gradient and two moments in 32, or moments in 8."""
    moments = 2 if recipe.training.optimizer == "adamw_8bit" else 8
    return _trained(shape, recipe) * (2 + 2 + 4 + 4 + moments)


def _activations(shape: Shape, tokens: int, width: int, again: bool) -> int:
    inputs = sum(i for i, _ in shape.linears.values())
    outputs = sum(o for _, o in shape.linears.values())
    layer = tokens * width * (inputs + outputs + 4 * shape.hidden_size)
    if again:
        return layer + shape.num_hidden_layers * tokens * width * shape.hidden_size
    return layer * shape.num_hidden_layers


def _logits(shape: Shape, supervised: int) -> int:
    """16-bit logits, their fp32 copy, its softmax and the gradients of both."""
    return supervised * shape.vocab_size * (2 + 4 + 4 + 4)


def _field(reader: GGUFReader, key: str) -> int:
    field = reader.get_field(f"llama.{key}")
    if field is None:
        raise BaseModelError(f"the GGUF file lacks llama.{key}; only Llama-like models are trained")
    return int(field.contents())
