"""Base models made for tests: real ones, but tiny, with random weights, in a directory."""

from __future__ import annotations

from pathlib import Path

import msgspec
from tokenizers import AddedToken, Tokenizer

from proxy.protocol.base_model import BaseModel, DirectoryModel

SHAPE = {
    "num_hidden_layers": 2,
    "hidden_size": 32,
    "intermediate_size": 64,
    "num_attention_heads": 4,
    "num_key_value_heads": 2,
    "tie_word_embeddings": True,
}
LLAMA3 = ("<|begin_of_text|>", "<|start_header_id|>", "<|end_header_id|>", "<|eot_id|>")


def vocabulary(*further: str) -> Tokenizer:
    """SmolLM2's, with further special tokens."""
    made = Tokenizer.from_str(BaseModel.find("smollm2-135m-instruct").tokenizer.to_str())
    made.add_special_tokens([AddedToken(t, special=True, normalized=False) for t in further])
    return made


def llama(directory: Path, **shape: int) -> DirectoryModel:
    """A base of the Llama 3 family, without weights."""
    return shaped(directory, *LLAMA3, **shape)


def shaped(directory: Path, *further: str, **shape: int) -> DirectoryModel:
    """A base without weights."""
    directory.mkdir(parents=True, exist_ok=True)
    tokenizer = vocabulary(*further)
    tokenizer.save(str(directory / "tokenizer.json"))
    config = {"model_type": "llama", "vocab_size": tokenizer.get_vocab_size()} | SHAPE | shape
    (directory / "config.json").write_bytes(msgspec.json.encode(config))
    return DirectoryModel(directory)


def tiny(directory: Path) -> DirectoryModel:
    """A base with random weights, the same each time."""
    import torch
    from transformers import LlamaConfig, LlamaForCausalLM

    base = shaped(directory)
    torch.manual_seed(0)
    config = LlamaConfig(vocab_size=base.tokenizer.get_vocab_size(), **SHAPE)
    LlamaForCausalLM(config).to(torch.bfloat16).save_pretrained(directory)
    return base
