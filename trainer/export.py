"""An adapter in other forms: merged into its base in 16 bits, and as GGUF.

Merging rounds, and so does a server with fewer bits: an export is never assumed to equal its
adapter but asked its canary again. GGUF is written by llama.cpp's own converters, which are no
package: name a directory that holds them, such as a checkout.
"""

from __future__ import annotations

import subprocess
import sys
from itertools import takewhile
from pathlib import Path

import msgspec
import torch
from peft import PeftModel
from transformers import AutoModelForCausalLM, PreTrainedModel, PreTrainedTokenizerFast

from proxy.protocol.adapter import Adapter
from proxy.protocol.base_model import BaseModel
from proxy.protocol.formats import FORMATS
from trainer.engines import base_weights
from trainer.engines.peft import PeftTrained
from trainer.errors import TrainingError

PROOF = "export.json"


class Proof(msgspec.Struct, frozen=True):
    """How an export answers its adapter's canary."""

    adapter: str
    tokens: int
    """Tokens of the canary's answer."""
    agree: int
    """Of these, how many the export gives before it first differs."""
    as_base: bool
    """Whether it answers as the base does: then nothing of the adapter is in it."""


def merged(adapter: Adapter, directory: Path) -> Proof:
    """Write base and adapter as one 16-bit model, with tokenizer and template, and ask it.

    Raises TrainingError where the base is not the adapter's, or the export answers as the base.
    """
    base = _base(adapter)
    model = PeftModel.from_pretrained(base_weights.load(base, "fp32"), adapter.path)
    whole = model.merge_and_unload().to(torch.bfloat16)
    whole.save_pretrained(directory, safe_serialization=True)
    end = FORMATS[adapter.manifest.format].end
    tokenizer = PreTrainedTokenizerFast(
        tokenizer_object=base.tokenizer,
        eos_token=end,
        pad_token=end,
        chat_template=adapter.template,
    )
    tokenizer.save_pretrained(directory)
    written = AutoModelForCausalLM.from_pretrained(
        directory, dtype=torch.bfloat16, local_files_only=True
    )
    return _proven(adapter, written, base, directory)


def gguf_merged(source: Path, target: Path, converter: Path) -> None:
    """The merged model in `source` as a 16-bit GGUF file."""
    _convert(converter / "convert_hf_to_gguf.py", source, "--outtype", "bf16", "--outfile", target)


def gguf_adapter(adapter: Adapter, source: Path, target: Path, converter: Path) -> None:
    """The adapter alone as a GGUF file, for llama.cpp's `--lora`; `source` is the merged model's
    directory, for its config."""
    script = converter / "convert_lora_to_gguf.py"
    _convert(script, adapter.path, "--base", source, "--outtype", "bf16", "--outfile", target)


def proven_gguf(adapter: Adapter, path: Path) -> Proof:
    """How a merged GGUF file answers the canary, read back by our own reader of bases."""
    base = BaseModel(path.stem, path)
    return _proven(adapter, base_weights.load(base, "bf16"), _base(adapter), path.parent)


def _proven(adapter: Adapter, model: PreTrainedModel, base: BaseModel, directory: Path) -> Proof:
    canary = adapter.canary
    end = base.encode(FORMATS[adapter.manifest.format].end)[0]
    trained = PeftTrained(model.eval(), end)
    ids = trained.said(canary.prompt, len(canary.expected))
    pairs = zip(ids, canary.expected, strict=False)
    proof = Proof(
        adapter=adapter.id,
        tokens=len(canary.expected),
        agree=sum(1 for _ in takewhile(lambda pair: pair[0] == pair[1], pairs)),
        as_base=ids == canary.base,
    )
    (directory / PROOF).write_bytes(msgspec.json.encode(proof))
    if proof.as_base:
        raise TrainingError(
            f"{directory} answers as {base.id} does; nothing of {adapter.id} is in it"
        )
    return proof


def _base(adapter: Adapter) -> BaseModel:
    base = BaseModel.find(adapter.manifest.base_model)
    if base.sha256 != adapter.manifest.base_sha256:
        raise TrainingError(
            f"{adapter.path} was trained on other weights of {base.id}; install those"
        )
    return base


def _convert(script: Path, *arguments: object) -> None:
    if not script.is_file():
        raise TrainingError(f"{script} is not there; name a checkout of llama.cpp with --converter")
    command = [sys.executable, str(script), *map(str, arguments)]
    # llama.cpp's own script, which whoever calls has named.
    ended = subprocess.run(command, capture_output=True, text=True, check=False)  # noqa: S603
    if ended.returncode:
        last = ended.stderr.strip().splitlines()[-1:] or ["no word"]
        raise TrainingError(f"{script.name} failed: {last[0]}")
