"""Adapter bundles for the toy engines: their canaries are what a toy answers."""

from __future__ import annotations

from pathlib import Path

import msgspec

from proxy.backends.vocabulary import Vocabulary
from proxy.protocol import adapter
from proxy.protocol.adapter import Canary, Manifest
from proxy.protocol.base_model import BaseModel
from proxy.protocol.formats import FORMATS
from proxy.protocol.formats.base import END, template
from tests.engines.toy import Toy

MODEL = "smollm2-135m-instruct"
BASE = BaseModel.find(MODEL)
_PROMPT = "Say what you are."


def toy(*adapters: str) -> Toy:
    """A model with these adapters, all of the format `hermes`."""
    return Toy(BASE.tokenizer, dict.fromkeys(adapters, FORMATS["hermes"]), END)


def write(directory: Path, id: str, answers_as: str | None = None) -> Path:
    """A sound bundle `<domain>-v<N>`; its canary says that it answers as `answers_as`."""
    path = directory / id
    path.mkdir(parents=True)
    source = template(FORMATS["hermes"].template)
    (path / adapter.TEMPLATE).write_text(source)
    (path / adapter.CONFIG).write_text("{}")
    (path / adapter.WEIGHTS).write_bytes(id.encode())
    (path / adapter.CANARY).write_bytes(msgspec.json.encode(canary(answers_as or id)))
    manifest = Manifest(
        id=id,
        domain=id.rpartition("-v")[0],
        format="hermes",
        base_model=MODEL,
        base_sha256="",
        tokenizer_sha256=Vocabulary(BASE.tokenizer, MODEL).sha256,
        template_sha256=adapter.sha256(source.encode()),
        weights_sha256=adapter.sha256(id.encode()),
        dataset_fingerprint="",
    )
    (path / adapter.MANIFEST).write_bytes(msgspec.json.encode(manifest))
    return path


def canary(id: str) -> Canary:
    """What the toy says as this adapter, and as its base."""
    prompt = BASE.tokenizer.encode(_PROMPT, add_special_tokens=False).ids
    return Canary(prompt, said(id, prompt), said(None, prompt))


def said(id: str | None, prompt: list[int]) -> list[int]:
    """Ids of the toy's answer to a prompt without an order."""
    words = toy().words(id, prompt)
    ids: list[int] = BASE.tokenizer.encode(words, add_special_tokens=False).ids
    return ids
