"""What TGI and vLLM can load of what PEFT can train.

Source: vLLM 0.32, `lora/peft_helper.py` and `config/lora.py`; TGI 3, `adapters/lora.py`. Checked
before training, since a server's refusal comes days later.
"""

from __future__ import annotations

from collections.abc import Mapping

RANKS = (8, 16, 32, 64)
TARGETS = frozenset(("q_proj", "k_proj", "v_proj", "o_proj", "gate_proj", "up_proj", "down_proj"))
_UNSET: dict[str, str] = {
    "use_dora": "DoRA",
    "modules_to_save": "whole layers beside the LoRA",
    "rank_pattern": "ranks that differ by layer",
    "alpha_pattern": "alphas that differ by layer",
    "lora_bias": "biases in the LoRA",
    "layer_replication": "replicated layers",
    "layers_to_transform": "a choice of layers",
    "trainable_token_indices": "trained tokens",
    "target_parameters": "bare parameters as targets",
    "exclude_modules": "excluded layers",
}
"""Settings of PEFT that must be at rest, and what they are."""


def faults(config: Mapping[str, object]) -> list[str]:
    """Why no engine would load an adapter with this adapter_config.json; [] for a good one."""
    found = [f"no engine loads {what} (`{key}`)" for key, what in _UNSET.items() if config.get(key)]
    if config.get("peft_type") != "LORA":
        found.append(f"`peft_type` is {config.get('peft_type')!r}, engines load LORA")
    if config.get("r") not in RANKS:
        found.append(f"rank {config.get('r')} is none of {RANKS}")
    if config.get("bias", "none") != "none":
        found.append("no engine loads biases (`bias`)")
    if config.get("init_lora_weights") not in (True, "gaussian", None):
        found.append("`init_lora_weights` changes the base; engines load the base as it is")
    targets = config.get("target_modules")
    named = set(targets) if isinstance(targets, list | tuple | set) else set()
    if not named or named - TARGETS:
        found.append(f"`target_modules` must be some of {', '.join(sorted(TARGETS))}")
    return found
