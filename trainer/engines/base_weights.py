"""A base model's weights as a PyTorch model, ready to be trained upon.

A GGUF file is dequantised. transformers reads GGUF too, but keeps some weights packed and drops
part of the tokenizer; a table of names and one permutation do without either.
"""

from __future__ import annotations

from typing import Any, Literal, TypeAlias

import numpy as np
import torch
from gguf import GGUFReader, dequantize
from transformers import AutoModelForCausalLM, LlamaConfig, LlamaForCausalLM, PreTrainedModel

from proxy.protocol.base_model import BaseModel, DirectoryModel
from trainer.errors import TrainingError

Precision: TypeAlias = Literal["auto", "bf16", "fp32", "nf4"]
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


def load(base: BaseModel, precision: Precision) -> PreTrainedModel:
    """The model, frozen weights in `precision`, on the GPU where there is one.

    Raises TrainingError where `nf4` is asked for and bitsandbytes is missing.
    """
    dtype = torch.float32 if _is_whole(precision) else torch.bfloat16
    if isinstance(base, DirectoryModel):
        model = _from_directory(base, dtype)
    else:
        model = _from_gguf(base, dtype)
    if precision == "nf4":
        _quantise(model)
    return model.to("cuda" if torch.cuda.is_available() else "cpu")


def _is_whole(precision: Precision) -> bool:
    """Whether weights take 32 bits: bf16 that is emulated is slower than fp32."""
    if precision == "auto":
        return not (torch.cuda.is_available() or torch.ops.mkldnn._is_mkldnn_bf16_supported())
    return precision == "fp32"


def _quantise(model: PreTrainedModel) -> None:
    """Put NF4 layers, double quantised, in the place of the seven linears of each layer."""
    try:
        from bitsandbytes.nn import Linear4bit, Params4bit
    except ImportError as error:
        raise TrainingError(
            "`training.precision: nf4` needs bitsandbytes; install the extra `qlora`"
        ) from error
    device = "cuda" if torch.cuda.is_available() else "cpu"
    for layer in model.model.layers:
        for part in (layer.self_attn, layer.mlp):
            for name, linear in list(part.named_children()):
                if isinstance(linear, torch.nn.Linear):
                    packed = Linear4bit(
                        linear.in_features,
                        linear.out_features,
                        bias=linear.bias is not None,
                        compute_dtype=torch.bfloat16,
                        compress_statistics=True,
                        quant_type="nf4",
                    )
                    packed.weight = Params4bit(
                        linear.weight.data, requires_grad=False, quant_type="nf4"
                    )
                    setattr(part, name, packed.to(device))


def _from_directory(base: DirectoryModel, dtype: torch.dtype) -> PreTrainedModel:
    model: PreTrainedModel = AutoModelForCausalLM.from_pretrained(
        base.directory, dtype=dtype, local_files_only=True, use_safetensors=True
    )
    return model


def _from_gguf(base: BaseModel, dtype: torch.dtype) -> PreTrainedModel:
    reader = GGUFReader(base.gguf)
    model = LlamaForCausalLM(_config(reader)).to(dtype)
    weights = {_name(t.name): _weight(t, model.config).to(dtype) for t in reader.tensors}
    missing, unexpected = model.load_state_dict(weights, strict=False)
    if unexpected or set(missing) - {"lm_head.weight"}:
        raise TrainingError(f"{base.gguf}: missing {missing}, unexpected {unexpected}")
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
