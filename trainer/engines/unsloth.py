"""Training with Unsloth's kernels on one GPU: its model, our examples, our loop.

Needs the extra `unsloth`, in an environment of its own: it pins older versions of what the trainer
uses. Its base is a directory, as hubs have it. Ids and labels are the same as with PEFT, since
neither engine makes them.
"""

from __future__ import annotations

import os
from collections.abc import Sequence
from pathlib import Path

# Unsloth patches transformers and PEFT where they are imported after it.
from unsloth import FastLanguageModel  # isort: skip

from proxy.protocol.base_model import BaseModel, DirectoryModel
from trainer.engines.peft import PeftTrained, fit
from trainer.errors import TrainingError
from trainer.recipe import Recipe
from trainer.tokens import Example
from trainer.validation import Validation


class UnslothEngine:
    """LoRA by Unsloth over a frozen base."""

    def train(
        self,
        base: BaseModel,
        examples: Sequence[Example],
        recipe: Recipe,
        run: Path,
        validation: Validation | None = None,
    ) -> PeftTrained:
        if int(os.environ.get("WORLD_SIZE", "1")) > 1:
            raise TrainingError(
                "Unsloth trains on one GPU; give `--cards 1`, or set `training.engine: peft`"
            )
        if not isinstance(base, DirectoryModel):
            raise TrainingError(
                "Unsloth reads no GGUF; set `base_model` to a directory with safetensors, or"
                " `training.engine: peft`"
            )
        settings = recipe.training
        model, _ = FastLanguageModel.from_pretrained(
            model_name=str(base.directory),
            max_seq_length=settings.max_tokens + recipe.decoding.max_new_tokens,
            load_in_4bit=settings.precision == "nf4",
            local_files_only=True,
        )
        adapted = FastLanguageModel.get_peft_model(
            model,
            r=recipe.lora.rank,
            lora_alpha=recipe.lora.alpha,
            lora_dropout=recipe.lora.dropout,
            target_modules=list(recipe.lora.targets),
            use_rslora=recipe.lora.rslora,
            bias="none",
            random_state=recipe.seed,
            use_gradient_checkpointing=settings.gradient_checkpointing,
        )
        return fit(adapted, base, examples, recipe, run, validation)


ENGINE = UnslothEngine()
"""What `training.engine: unsloth` names."""
