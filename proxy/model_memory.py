"""How much memory a model takes: weights by quantisation, an adapter, a token of the KV cache.

Exact, from the shapes of the layers. Pure arithmetic.
"""

from __future__ import annotations

from typing import Literal, TypeAlias, get_args

import msgspec

GIB = 1 << 30
MIB = 1 << 20

Quantize: TypeAlias = Literal["bf16", "int8", "awq", "nf4"]
QUANTIZE: tuple[Quantize, ...] = get_args(Quantize)


class Base(msgspec.Struct, frozen=True, kw_only=True):
    """Shape of a Llama-like model: grouped-query attention, a gated MLP, no biases."""

    model: str
    """Where the engines fetch it."""
    layers: int
    hidden: int
    mlp: int
    """Width of gate and up."""
    heads: int
    kv_heads: int
    head_size: int
    vocabulary: int
    tied: bool
    """Whether the output layer is the embedding."""

    @property
    def linears(self) -> dict[str, tuple[int, int]]:
        """The linear layers that are quantised and adapted, each (inputs, outputs)."""
        q, kv = self.heads * self.head_size, self.kv_heads * self.head_size
        h = self.hidden
        return {
            "q": (h, q),
            "k": (h, kv),
            "v": (h, kv),
            "o": (q, h),
            "gate": (h, self.mlp),
            "up": (h, self.mlp),
            "down": (self.mlp, h),
        }

    @property
    def quantised(self) -> int:
        """Parameters in the linear layers."""
        return self.layers * sum(i * o for i, o in self.linears.values())

    @property
    def others(self) -> int:
        """Parameters that stay in 16 bits: embedding, output layer, norms."""
        embedding = self.vocabulary * self.hidden * (1 if self.tied else 2)
        return embedding + (2 * self.layers + 1) * self.hidden

    @property
    def kv_bytes(self) -> int:
        """KV cache of one token, 16-bit."""
        return 2 * self.layers * self.kv_heads * self.head_size * 2

    def adapter_bytes(self, rank: int, targets: tuple[str, ...] = ()) -> int:
        """A LoRA in 16 bits, on these linears, or on all seven."""
        shapes = [self.linears[name] for name in targets or self.linears]
        return 2 * rank * self.layers * sum(i + o for i, o in shapes)


_LLAMA = Base(
    model="meta-llama/Llama-3.1-8B-Instruct",
    layers=32,
    hidden=4096,
    mlp=14336,
    heads=32,
    kv_heads=8,
    head_size=128,
    vocabulary=128256,
    tied=False,
)

BASES = {
    "llama-3.1-8b": _LLAMA,
    "llama-3.2-3b": msgspec.structs.replace(
        _LLAMA,
        model="meta-llama/Llama-3.2-3B-Instruct",
        layers=28,
        hidden=3072,
        mlp=8192,
        heads=24,
        tied=True,
    ),
    "llama-3.2-1b": msgspec.structs.replace(
        _LLAMA,
        model="meta-llama/Llama-3.2-1B-Instruct",
        layers=16,
        hidden=2048,
        mlp=8192,
        head_size=64,
        tied=True,
    ),
}


def weights_bytes(base: Base, quantize: Quantize, double: bool = False) -> int:
    """The base model's weights. `double`: NF4 whose scales are quantised too (QLoRA, section 3)."""
    return _linear_bytes(base.quantised, quantize, double) + 2 * base.others


def _linear_bytes(count: int, quantize: Quantize, double: bool) -> int:
    match quantize:
        case "bf16":
            return 2 * count
        case "int8":
            return count
        case "awq":
            # Groups of 128: a 16-bit scale and a 4-bit zero each.
            return count // 2 + count // 128 * 5 // 2
        case "nf4":
            blocks = count // 64
            return count // 2 + (blocks + blocks // 256 * 4 if double else 4 * blocks)
