"""One file from the base model and an adapter: Q4_1 in, update added, Q8_0 out.

Sources: the GGUF specification (ggml-org/ggml, docs/gguf.md); the file layout of PEFT's LoRA
(`adapter_config.json`, `adapter_model.safetensors`); the row order of q and k in `permute` of
llama.cpp's convert_hf_to_gguf.py.

Why merge at all: OpenVINO GenAI does not apply LoRA to a model that it reads from GGUF, and reads
the minimum of a Q4_1 block as an integer, which moves the weights by 8 %. Q8_0 has no minimum.
"""

from __future__ import annotations

import os
import sys
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any, NamedTuple, TypeAlias

import msgspec
import numpy as np
import numpy.typing as npt
from gguf import GGMLQuantizationType, GGUFReader, GGUFValueType, GGUFWriter
from gguf.gguf_reader import ReaderTensor
from gguf.quants import dequantize, quantize
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

_Q8_0_FILE = 7
"""LlamaFileType.MOSTLY_Q8_0, for `general.file_type`."""


class WeightsError(ValueError):
    """Base or adapter cannot be merged; the message names the file and the tensor or key."""


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


def merge(base: Path, adapter: Path | None, target: Path) -> None:
    """Write `target`: the base with the adapter's update added, linears in Q8_0, same metadata.

    `adapter` is a PEFT directory; None re-quantises the base alone. `target` appears whole or not
    at all. Raises WeightsError before anything is written when the adapter does not fit.
    """
    reader = _open_base(base)
    update = read_adapter(adapter) if adapter is not None else None
    if update is not None:
        _check_fit(reader, update)
    with _replacing(target) as temporary:
        _write(reader, update, temporary)


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
        raise WeightsError(f"{path}: {name} belongs to no linear that can be merged")
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


def _open_base(path: Path) -> GGUFReader:
    try:
        reader = GGUFReader(path)
    except (OSError, ValueError, KeyError, IndexError) as error:
        raise WeightsError(f"{path}: not a readable GGUF file ({error})") from error
    if _metadata(reader, "general.architecture") != "llama":
        # The row order of q and k is that of the converter for this architecture only.
        raise WeightsError(f"{path}: architecture is not llama")
    return reader


def _metadata(reader: GGUFReader, key: str) -> Any:
    field = reader.get_field(key)
    return None if field is None else field.contents()


def _check_fit(reader: GGUFReader, adapter: Adapter) -> None:
    shapes = {tensor.name: _shape(tensor) for tensor in reader.tensors}
    for name, (a, b) in adapter.pairs.items():
        update = (b.shape[0], a.shape[1])
        if shapes.get(name) != update:
            raise WeightsError(
                f"{adapter.path}: {name} is {update}, the base has {shapes.get(name)}"
            )


def _shape(tensor: ReaderTensor) -> tuple[int, ...]:
    """Shape in numpy's order: (out, in). GGUF counts the fastest dimension first."""
    return tuple(int(n) for n in reversed(tensor.shape.tolist()))


def _write(reader: GGUFReader, adapter: Adapter | None, path: Path) -> None:
    """Tensor by tensor, so that the memory in use is that of the largest one."""
    writer = GGUFWriter(path, _metadata(reader, "general.architecture"))
    try:
        _copy_metadata(reader, writer)
        for tensor in reader.tensors:
            _announce(writer, tensor)
        writer.write_header_to_file()
        writer.write_kv_data_to_file()
        writer.write_ti_data_to_file()
        for tensor in reader.tensors:
            writer.write_tensor_data(_converted(reader, tensor, adapter))
    finally:
        writer.close()


def _copy_metadata(reader: GGUFReader, writer: GGUFWriter) -> None:
    for name, field in reader.fields.items():
        # Keys under GGUF. are the reader's own view of the header, and the writer has set the
        # architecture; an empty array has no element type to copy.
        if name.startswith("GGUF.") or name == "general.architecture" or len(field.types) == 0:
            continue
        value = _Q8_0_FILE if name == "general.file_type" else field.contents()
        is_array = field.types[0] == GGUFValueType.ARRAY
        if is_array and len(field.types) == 1:
            continue
        writer.add_key_value(name, value, field.types[0], field.types[-1] if is_array else None)


def _is_kept(tensor: ReaderTensor) -> bool:
    return tensor.tensor_type in (GGMLQuantizationType.F32, GGMLQuantizationType.Q8_0) and (
        not tensor.name.startswith("blk.") or len(tensor.shape) == 1
    )


def _announce(writer: GGUFWriter, tensor: ReaderTensor) -> None:
    kind = tensor.tensor_type if _is_kept(tensor) else GGMLQuantizationType.Q8_0
    block, size = _BLOCKS[kind]
    writer.add_tensor_info(
        tensor.name,
        _shape(tensor),
        np.dtype(np.float32),
        tensor.n_elements // block * size,
        raw_dtype=kind,
    )


_BLOCKS = {GGMLQuantizationType.F32: (1, 4), GGMLQuantizationType.Q8_0: (32, 34)}
"""Elements of a block → its bytes, of the types that are written."""


def _converted(
    reader: GGUFReader, tensor: ReaderTensor, adapter: Adapter | None
) -> npt.NDArray[Any]:
    """The tensor as it is written: float32, or Q8_0 blocks as bytes."""
    stored: npt.NDArray[Any] = tensor.data
    if _is_kept(tensor):
        return stored
    weight: Floats = dequantize(stored, tensor.tensor_type).reshape(_shape(tensor))
    pair = adapter.pairs.get(tensor.name) if adapter is not None else None
    if adapter is not None and pair is not None:
        weight = weight + _stored_order(reader, tensor.name, adapter.scale * (pair.b @ pair.a))
        _check_range(adapter, tensor.name, weight)
    blocks: npt.NDArray[Any] = quantize(weight, GGMLQuantizationType.Q8_0)
    return blocks


def _check_range(adapter: Adapter, name: str, weight: Floats) -> None:
    # A block's scale is a half-precision number: beyond 65504 * 127 it would be infinite.
    if not np.abs(weight).max() < 65504 * 127:
        raise WeightsError(f"{adapter.path}: {name} is too large after the update")


def _stored_order(reader: GGUFReader, name: str, update: Floats) -> Floats:
    """The update's rows in the file's order, which for q and k is rotary: pairs side by side."""
    heads_key = {"attn_q": "head_count", "attn_k": "head_count_kv"}.get(name.split(".")[-2])
    if heads_key is None:
        return update
    heads = int(_metadata(reader, f"llama.attention.{heads_key}"))
    rows, columns = update.shape
    return (
        update.reshape(heads, 2, rows // heads // 2, columns).swapaxes(1, 2).reshape(rows, columns)
    )


@contextmanager
def _replacing(target: Path) -> Iterator[Path]:
    """A temporary name beside `target`, renamed to it when the block ends well, else removed."""
    temporary = target.with_name(f".{target.name}.{os.getpid()}.tmp")
    try:
        yield temporary
        with temporary.open("rb") as file:
            os.fsync(file.fileno())
        temporary.replace(target)
    finally:
        temporary.unlink(missing_ok=True)


REFUSED = 3
"""Exit status for weights that cannot be merged; why is on stderr."""


def main(base: str, adapter: str, target: str) -> int:
    """`python -m proxy.backends.embedded.weights BASE ADAPTER TARGET`; ADAPTER may be empty."""
    try:
        merge(Path(base), Path(adapter) if adapter else None, Path(target))
    except WeightsError as error:
        print(error, file=sys.stderr)
        return REFUSED
    return 0


if __name__ == "__main__":
    sys.exit(main(*sys.argv[1:]))
