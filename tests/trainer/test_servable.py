"""What no engine would load is said before it is trained."""

from __future__ import annotations

import pytest

from trainer.servable import faults

SOUND: dict[str, object] = {
    "peft_type": "LORA",
    "r": 16,
    "bias": "none",
    "target_modules": ["q_proj", "v_proj"],
    "init_lora_weights": True,
}


def test_a_plain_lora_is_loaded():
    assert faults(SOUND) == []


@pytest.mark.parametrize(
    ("change", "told"),
    [
        ({"use_dora": True}, "DoRA"),
        ({"modules_to_save": ["lm_head"]}, "whole layers"),
        ({"rank_pattern": {"q_proj": 8}}, "ranks that differ"),
        ({"lora_bias": True}, "biases in the LoRA"),
        ({"bias": "all"}, "biases"),
        ({"r": 12}, "rank 12"),
        ({"peft_type": "LOHA"}, "LORA"),
        ({"init_lora_weights": "pissa"}, "changes the base"),
        ({"target_modules": ["q_proj", "lm_head"]}, "target_modules"),
        ({"target_modules": "all-linear"}, "target_modules"),
        ({"target_modules": []}, "target_modules"),
    ],
)
def test_what_engines_lack_is_named(change, told):
    (said,) = faults(SOUND | change)

    assert told in said
