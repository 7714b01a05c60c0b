"""What a model is made of, read and checked: the base's GGUF file, and adapters as PEFT has them.

Sources: the GGUF specification (ggml-org/ggml, docs/gguf.md); the file layout of PEFT's LoRA
(`adapter_config.json`, `adapter_model.safetensors`); the row order of q and k in `permute` of
llama.cpp's convert_hf_to_gguf.py.
"""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any, NamedTuple, TypeAlias

import msgspec
import numpy as np
import numpy.typing as npt
from gguf import GGUFReader
from gguf.quants import dequantize
from safetensors import SafetensorError, deserialize

Floats: TypeAlias = npt.NDArray[np.float32]

CONFIG_NAME = "adapter_config.json"
WEIGHTS_NAME = "adapter_model.safetensors"

MAX_CONFIG_BYTES = 1 << 20
MAX_WEIGHTS_BYTES = 1 << 30
"""Chosen: rank 64 on every linear of a 1.7 B model is 0.3 GB in float32."""

LINEARS = {
    "self_attn.q_proj": "attn_q",
    "self_attn.k_proj": "attn_k",
    "self_attn.v_proj": "attn_v",
    "self_attn.o_proj": "attn_output",
    "mlp.gate_proj": "ffn_gate",
    "mlp.up_proj": "ffn_up",
    "mlp.down_proj": "ffn_down",
}
"""The linears of a layer: PEFT's name for it → GGUF's."""

EMBEDDING = "token_embd.weight"
OUTPUT = "output.weight"
"""Missing where it is the embedding."""
OUTPUT_NORM = "output_norm.weight"
ROPE_FACTORS = "rope_freqs.weight"
"""What Llama 3.1 and later divide the frequencies by."""

_TARGETS = frozenset(name.rpartition(".")[2] for name in LINEARS)
_PREFIX = "base_model.model.model.layers."

# Each of these changes what the update is, or what else is trained; to ignore one would serve a
# model that nobody evaluated.
_UNSUPPORTED = (
    "use_dora",
    "use_qalora",
    "lora_bias",
    "fan_in_fan_out",
    "modules_to_save",
    "rank_pattern",
    "alpha_pattern",
    "layer_replication",
    "target_parameters",
    "trainable_token_indices",
    "alora_invocation_tokens",
    "megatron_config",
)
# PiSSA, OLoRA, CorDA and LoftQ also change the base; the others only choose where A and B start.
_HARMLESS_STARTS = (True, False, None, "gaussian", "eva", "orthogonal", "lora_ga")


class WeightsError(ValueError):
    """Base or adapter cannot be used; the message names the file and the tensor or key."""


class LoraConfig(msgspec.Struct, frozen=True):
    """The part of adapter_config.json that decides what is added to the base."""

    r: int
    lora_alpha: float
    target_modules: list[str] | str = []
    peft_type: str = "LORA"
    bias: str = "none"
    use_rslora: bool = False
    init_lora_weights: bool | str | None = True

    @property
    def scale(self) -> float:
        """What B @ A is multiplied by."""
        return self.lora_alpha / (self.r**0.5 if self.use_rslora else self.r)


class Pair(NamedTuple):
    """Low-rank factors of one linear: A (r, in), B (out, r)."""

    a: Floats
    b: Floats


class Adapter(msgspec.Struct, frozen=True):
    """An adapter, read and checked: the pair of each linear, by GGUF tensor name."""

    path: Path
    scale: float
    pairs: dict[str, Pair]


def read_adapter(directory: Path) -> Adapter:
    """The adapter in a PEFT directory; sizes are checked before anything is allocated."""
    config = read_config(directory / CONFIG_NAME)
    path = directory / WEIGHTS_NAME
    factors = _read_factors(path)
    return Adapter(path, config.scale, _pair_up(path, factors, config.r))


def read_config(path: Path) -> LoraConfig:
    """The adapter's config; WeightsError when it asks for more than plain LoRA."""
    raw = _read_bounded(path, MAX_CONFIG_BYTES)
    try:
        keys = msgspec.json.decode(raw, type=dict[str, Any])
        config = msgspec.json.decode(raw, type=LoraConfig)
    except (msgspec.MsgspecError, UnicodeDecodeError, RecursionError) as error:
        raise WeightsError(f"{path}: {error}") from error
    _check_config(path, config, keys)
    return config


def _check_config(path: Path, config: LoraConfig, keys: Mapping[str, Any]) -> None:
    if config.peft_type != "LORA" or config.bias != "none":
        kind = f"peft_type {config.peft_type}, bias {config.bias}"
        raise WeightsError(f"{path}: needs peft_type LORA, bias none; got {kind}")
    if config.r < 1 or not np.isfinite(config.lora_alpha):
        raise WeightsError(
            f"{path}: r = {config.r} and lora_alpha = {config.lora_alpha} are no scale"
        )
    if config.init_lora_weights not in _HARMLESS_STARTS:
        raise WeightsError(
            f"{path}: init_lora_weights = {config.init_lora_weights!r} changes the base"
        )
    if set_keys := [key for key in _UNSUPPORTED if keys.get(key)]:
        raise WeightsError(f"{path}: {', '.join(set_keys)} not supported")
    if unknown := sorted(set(_targets(config)) - _TARGETS):
        raise WeightsError(f"{path}: unknown target_modules {', '.join(unknown)}")


def _targets(config: LoraConfig) -> list[str]:
    # A string is a regular expression or "all-linear"; the tensors then say what it chose.
    if isinstance(config.target_modules, str):
        return []
    return [name.rpartition(".")[2] for name in config.target_modules]


def _read_bounded(path: Path, limit: int) -> bytes:
    try:
        with path.open("rb") as file:
            content = file.read(limit + 1)
    except OSError as error:
        raise WeightsError(f"{path}: {error.strerror}") from error
    if len(content) > limit:
        raise WeightsError(f"{path}: more than {limit} bytes")
    return content


def _read_factors(path: Path) -> dict[str, Floats]:
    """Every tensor of a safetensors file as float32, by name.

    `deserialize` checks that header, offsets, shapes and file size agree, so an array can only be
    as large as the file.
    """
    try:
        tensors = deserialize(_read_bounded(path, MAX_WEIGHTS_BYTES))  # type: ignore[no-untyped-call]
    except SafetensorError as error:
        raise WeightsError(f"{path}: {error}") from error
    return {name: _as_float32(path, name, tensor) for name, tensor in tensors}


def _as_float32(path: Path, name: str, tensor: Mapping[str, Any]) -> Floats:
    raw = tensor["data"]
    match tensor["dtype"]:
        case "BF16":
            # numpy has no bfloat16: it is the upper half of a float32.
            values = (np.frombuffer(raw, "<u2").astype(np.uint32) << 16).view(np.float32)
        case "F16":
            values = np.frombuffer(raw, "<f2").astype(np.float32)
        case "F32":
            values = np.frombuffer(raw, "<f4").astype(np.float32)
        case other:
            raise WeightsError(f"{path}: {name} is {other}, not BF16, F16 or F32")
    if not np.isfinite(values).all():
        raise WeightsError(f"{path}: {name} has values that are not finite")
    return values.reshape(tensor["shape"])


def _pair_up(path: Path, factors: dict[str, Floats], rank: int) -> dict[str, Pair]:
    """A and B of each linear together, by GGUF tensor name; WeightsError when one is alone."""
    halves: dict[str, dict[str, Floats]] = {}
    for name, values in factors.items():
        linear, half = _locate(path, name)
        halves.setdefault(linear, {})[half] = values
    if not halves:
        raise WeightsError(f"{path}: holds no tensors")
    return {linear: _pair(path, linear, found, rank) for linear, found in halves.items()}


def _locate(path: Path, name: str) -> tuple[str, str]:
    """GGUF tensor name and "A" or "B" of a PEFT tensor name."""
    layer, _, rest = name.removeprefix(_PREFIX).partition(".")
    linear, _, half = rest.partition(".lora_")
    if not name.startswith(_PREFIX) or not layer.isdecimal() or linear not in LINEARS:
        raise WeightsError(f"{path}: {name} belongs to no linear that can be adapted")
    if half not in ("A.weight", "B.weight"):
        raise WeightsError(f"{path}: {name} is neither lora_A nor lora_B")
    return f"blk.{int(layer)}.{LINEARS[linear]}.weight", half[0]


def _pair(path: Path, linear: str, found: dict[str, Floats], rank: int) -> Pair:
    if found.keys() != {"A", "B"}:
        raise WeightsError(f"{path}: {linear} has only lora_{''.join(found)}")
    a, b = found["A"], found["B"]
    if a.ndim != 2 or b.ndim != 2 or a.shape[0] != rank or b.shape[1] != rank:
        raise WeightsError(f"{path}: {linear} has A {a.shape} and B {b.shape}, but r is {rank}")
    return Pair(a, b)


class Base:
    """The base model in a GGUF file: sizes, and weights as PEFT and transformers order them."""

    def __init__(self, path: Path) -> None:
        """Raises WeightsError for what is no plain Llama."""
        self.path = path
        self._reader = _opened(path)
        self._tensors = {tensor.name: tensor for tensor in self._reader.tensors}
        self.heads = int(self._value("attention.head_count"))
        self.kv_heads = int(self._value("attention.head_count_kv"))
        self.layers = int(self._value("block_count"))
        self.epsilon = float(self._value("attention.layer_norm_rms_epsilon"))
        self.rope_base = float(self._value("rope.freq_base", 10000.0))
        self.vocabulary, self.width = self.shape(EMBEDDING)
        self.head_size = self.width // self.heads
        if unknown := sorted(self._tensors.keys() - self._known()):
            raise WeightsError(f"{path}: a plain Llama has no {unknown[0]}")

    def has(self, name: str) -> bool:
        """Whether there is a tensor of this name."""
        return name in self._tensors

    def shape(self, name: str) -> tuple[int, ...]:
        """Shape in numpy's order: (out, in). GGUF counts the fastest dimension first."""
        if name not in self._tensors:
            raise WeightsError(f"{self.path}: lacks {name}")
        return tuple(int(n) for n in reversed(self._tensors[name].shape.tolist()))

    def floats(self, name: str) -> Floats:
        """The tensor as it is meant, whatever it is stored in."""
        shape, tensor = self.shape(name), self._tensors[name]
        values: Floats = dequantize(tensor.data, tensor.tensor_type).reshape(shape)
        heads = {"attn_q": self.heads, "attn_k": self.kv_heads}.get(name.split(".")[-2])
        return values if heads is None else _halves_apart(values, heads)

    def check_fit(self, adapter: Adapter) -> None:
        """WeightsError where the adapter is one of another model."""
        for name, (a, b) in adapter.pairs.items():
            update = (b.shape[0], a.shape[1])
            ours = self.shape(name) if self.has(name) else None
            if ours != update:
                raise WeightsError(f"{adapter.path}: {name} is {update}, the base has {ours}")

    def _known(self) -> set[str]:
        parts = [*LINEARS.values(), "attn_norm", "ffn_norm"]
        layers = {f"blk.{n}.{part}.weight" for n in range(self.layers) for part in parts}
        return layers | {EMBEDDING, OUTPUT, OUTPUT_NORM, ROPE_FACTORS}

    def _value(self, key: str, default: float | None = None) -> Any:
        field = self._reader.get_field(f"llama.{key}")
        if field is None and default is None:
            raise WeightsError(f"{self.path}: lacks llama.{key}")
        return default if field is None else field.contents()


def _opened(path: Path) -> GGUFReader:
    try:
        reader = GGUFReader(path)
    except (OSError, ValueError, KeyError, IndexError) as error:
        raise WeightsError(f"{path}: not a readable GGUF file ({error})") from error
    field = reader.get_field("general.architecture")
    if field is None or field.contents() != "llama":
        # The row order of q and k is that of the converter for this architecture only.
        raise WeightsError(f"{path}: architecture is not llama")
    return reader


def _halves_apart(rows: Floats, heads: int) -> Floats:
    """Rows of q or k, which the file has in rotary pairs side by side, in transformers' order."""
    count, columns = rows.shape
    return rows.reshape(heads, count // heads // 2, 2, columns).swapaxes(1, 2).reshape(count, -1)
