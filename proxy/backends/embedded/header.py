"""The scalar metadata at the head of a GGUF file, without the arrays.

Source: the GGUF specification (ggml-org/ggml, docs/gguf.md). gguf's own reader makes an object of
every token and merge, some 2 s for a vocabulary of 49 152; who only wants sizes need not wait.
"""

from __future__ import annotations

import mmap
import struct
from pathlib import Path
from typing import TypeAlias

import msgspec

Scalar: TypeAlias = int | float | bool | str

_SCALARS = {
    0: struct.Struct("<B"),
    1: struct.Struct("<b"),
    2: struct.Struct("<H"),
    3: struct.Struct("<h"),
    4: struct.Struct("<I"),
    5: struct.Struct("<i"),
    6: struct.Struct("<f"),
    7: struct.Struct("<?"),
    10: struct.Struct("<Q"),
    11: struct.Struct("<q"),
    12: struct.Struct("<d"),
}
_STRING, _ARRAY = 8, 9
_U32, _U64 = _SCALARS[4], _SCALARS[10]


LANES = 64
"""Numbers that the KV cache holds for a token to know its adapter by, as many as a head has: so
many adapters at most in one model (graph.py)."""


class HeaderError(ValueError):
    """The file is no GGUF file, or lacks a key that is needed; the message names both."""


class ModelShape(msgspec.Struct, frozen=True):
    """The sizes of a model that a request or a cache is checked against."""

    context: int
    """Tokens of prompt and answer together."""
    vocabulary: int
    layers: int
    kv_heads: int
    head_size: int

    @classmethod
    def read(cls, path: Path) -> ModelShape:
        """The shape of the model in a GGUF file."""
        keys = read_header(path)
        width = _number(path, keys, "llama.embedding_length")
        return cls(
            context=_number(path, keys, "llama.context_length"),
            vocabulary=_number(path, keys, "tokenizer.ggml.tokens"),
            layers=_number(path, keys, "llama.block_count"),
            kv_heads=_number(path, keys, "llama.attention.head_count_kv"),
            head_size=width // _number(path, keys, "llama.attention.head_count"),
        )


def read_header(path: Path) -> dict[str, Scalar]:
    """Metadata by key; an array is represented by its length."""
    try:
        with path.open("rb") as file, mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ) as view:
            return _Cursor(view).header()
    except (OSError, ValueError, OverflowError, struct.error, KeyError) as error:
        raise HeaderError(f"{path}: not a readable GGUF file ({error})") from error


def _number(path: Path, keys: dict[str, Scalar], key: str) -> int:
    value = keys.get(key)
    if not isinstance(value, int) or value < 1:
        raise HeaderError(f"{path}: {key} is {value!r}, not a positive number")
    return value


class _Cursor:
    """A position in the file that moves past what it reads."""

    def __init__(self, view: mmap.mmap) -> None:
        self._view = view
        self._at = 0

    def header(self) -> dict[str, Scalar]:
        if self._view[:4] != b"GGUF":
            raise ValueError("the magic is missing")
        self._at = 8  # magic and version
        self._scalar(_U64)  # number of tensors
        keys = int(self._scalar(_U64))
        return {self._string(): self._value(int(self._scalar(_U32))) for _ in range(keys)}

    def _scalar(self, form: struct.Struct) -> int | float:
        (value,) = form.unpack_from(self._view, self._at)
        self._at += form.size
        number: int | float = value
        return number

    def _string(self) -> str:
        length = int(self._scalar(_U64))
        start, self._at = self._at, self._at + length
        return self._view[start : self._at].decode("utf-8", "replace")

    def _value(self, kind: int) -> Scalar:
        if kind == _STRING:
            return self._string()
        return self._skip_array() if kind == _ARRAY else self._scalar(_SCALARS[kind])

    def _skip_array(self) -> int:
        kind, length = int(self._scalar(_U32)), int(self._scalar(_U64))
        if kind == _STRING:
            for _ in range(length):
                self._at += 8 + int(_U64.unpack_from(self._view, self._at)[0])
        else:
            self._at += length * _SCALARS[kind].size
        return length
