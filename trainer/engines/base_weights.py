"""A base model's GGUF file as a PyTorch Llama, dequantised.

transformers reads GGUF too, but keeps some weights packed and drops part of the tokenizer; a table
of names and one permutation do without either.
"""

from __future__ import annotations

from typing import Any

import numpy as np
import torch
from gguf import GGUFReader, dequantize
from transformers import LlamaConfig, LlamaForCausalLM

from proxy.protocol.base_model import BaseModel

_NAMES = {
    "token_embd": "model.embed_tokens",
    "output_norm": "model.norm",
    "attn_norm": "input_layernorm",
    "attn_q": "self_attn.q_proj",
    "attn_k": "self_attn.k_proj",
    "attn_v": "self_attn.v_proj",
    "attn_output": "self_attn.o_proj",
    "ffn_norm": "post_attention_layernorm",
    "ffn_gate": "mlp.gate_proj",
    "ffn_up": "mlp.up_proj",
    "ffn_down": "mlp.down_proj",
}


def load(base: BaseModel, dtype: torch.dtype) -> LlamaForCausalLM:
    """The model with its weights in `dtype`, embeddings tied, ready to be trained upon."""
    reader = GGUFReader(base.gguf)
    model = LlamaForCausalLM(_config(reader)).to(dtype)
    weights = {_name(t.name): _weight(t, model.config).to(dtype) for t in reader.tensors}
    missing, unexpected = model.load_state_dict(weights, strict=False)
    if unexpected or set(missing) - {"lm_head.weight"}:
        raise ValueError(f"{base.gguf}: missing {missing}, unexpected {unexpected}")
    model.tie_weights()
    return model


def _config(reader: GGUFReader) -> LlamaConfig:
    def field(key: str) -> Any:
        found = reader.get_field(f"llama.{key}")
        return found.contents() if found is not None else None

    return LlamaConfig(
        vocab_size=field("vocab_size"),
        hidden_size=field("embedding_length"),
        intermediate_size=field("feed_forward_length"),
        num_hidden_layers=field("block_count"),
        num_attention_heads=field("attention.head_count"),
        num_key_value_heads=field("attention.head_count_kv"),
        max_position_embeddings=field("context_length"),
        rms_norm_eps=field("attention.layer_norm_rms_epsilon"),
        rope_parameters={"rope_type": "default", "rope_theta": field("rope.freq_base")},
        tie_word_embeddings=True,
    )


def _name(gguf: str) -> str:
    parts = gguf.removesuffix(".weight").split(".")
    if parts[0] == "blk":
        return f"model.layers.{parts[1]}.{_NAMES[parts[2]]}.weight"
    return f"{_NAMES[parts[0]]}.weight"


def _weight(tensor: Any, config: LlamaConfig) -> torch.Tensor:
    weight = dequantize(tensor.data, tensor.tensor_type)
    if ".attn_q." in tensor.name:
        weight = _unrotated(weight, config.num_attention_heads)
    if ".attn_k." in tensor.name:
        weight = _unrotated(weight, config.num_key_value_heads)
    return torch.from_numpy(np.ascontiguousarray(weight, dtype=np.float32))


def _unrotated(weight: np.ndarray, heads: int) -> np.ndarray:
    """GGUF interleaves the halves of each head's rotary dimensions; PyTorch's Llama does not."""
    rows, columns = weight.shape
    halves = weight.reshape(heads, rows // heads // 2, 2, columns).swapaxes(1, 2)
    return halves.reshape(rows, columns)
