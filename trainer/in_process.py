"""Asking a model in this process: as quick as training's own steps, and without a server.

The prompt is the one that the proxy renders and the text is parsed by the same code; what is left
out is the served engine itself: its quantisation, its constraint, its batching. How often the two
differ is told by `evaluate --in-process`.
"""

from __future__ import annotations

import asyncio
import functools
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import NamedTuple

from proxy.protocol import adapter
from proxy.protocol.base_model import BaseModel
from proxy.protocol.formats import FORMATS
from trainer.engines.base import Trained
from trainer.errors import TrainerError
from trainer.evaluate import Said
from trainer.rows import Row
from trainer.tokens import Encoder

MOST_TOKENS = 256
"""Of an answer, where nobody says otherwise."""


class InProcess:
    """A model's greedy answers. `greedy` gets a prompt's token ids and how many to add at most."""

    place = "this process"
    trouble = ""

    def __init__(
        self,
        encoder: Encoder,
        format: str,
        greedy: Callable[[Sequence[int], int], list[int]],
        most: int = MOST_TOKENS,
    ) -> None:
        self._most = most
        self._encoder = encoder
        self._format = FORMATS[format]
        self._greedy = greedy
        self._one = asyncio.Lock()

    async def ask(self, row: Row) -> Said | None:
        prompt = self._encoder.prompt(row)
        async with self._one:
            began = time.monotonic()
            ids = await asyncio.to_thread(self._greedy, prompt, self._most)
        decoded: str = self._encoder.base.tokenizer.decode(ids, skip_special_tokens=False)
        text = decoded.partition(self._format.end)[0]
        return Said(
            parsed=self._format.parse(text),
            raw=text,
            seconds=time.monotonic() - began,
            model=self._encoder.base.id,
            at=time.time(),
            prompt_tokens=len(prompt),
            completion_tokens=len(ids),
        )

    async def close(self) -> None:
        return None


def of_bundle(directory: Path, base: str = "", most: int = MOST_TOKENS) -> InProcess:
    """The adapter in a bundle over its base, in bf16; raises TrainerError without PEFT. `base`:
    where its base is found, for one that does not ship with Headrace."""
    loaded = _load(directory, base)
    return InProcess(loaded.encoder, loaded.format, loaded.model.greedy, most)


def of_base(directory: Path, base: str = "", most: int = MOST_TOKENS) -> InProcess:
    """The bare base of a bundle, asked as the bundle's adapter is; as `of_bundle`."""
    loaded = _load(directory, base)
    bare = functools.partial(loaded.model.greedy, adapter=False)
    return InProcess(loaded.encoder, loaded.format, bare, most)


class _Loaded(NamedTuple):
    encoder: Encoder
    format: str
    model: Trained


def _load(directory: Path, found: str) -> _Loaded:
    try:
        from peft import PeftModel

        from trainer.engines import base_weights
        from trainer.engines.peft import PeftTrained
    except ModuleNotFoundError as error:
        raise TrainerError(
            f"asking in this process needs {error.name}: `make train-setup`"
        ) from error
    bundle = adapter.read(directory)
    base = BaseModel.find(found or bundle.manifest.base_model)
    if base.sha256 != bundle.manifest.base_sha256:
        raise TrainerError(f"{directory} is for another base than {base.id}; name the right one")
    weights = base_weights.load(base, "bf16")
    (end,) = base.encode(FORMATS[bundle.manifest.format].end)
    model = PeftTrained(PeftModel.from_pretrained(weights, directory).eval(), end)
    encoder = Encoder(base, bundle.template, bundle.manifest.format)
    return _Loaded(encoder, bundle.manifest.format, model)
