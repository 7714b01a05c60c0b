"""DPO on pairs and KTO on thumbs, by TRL, on top of an adapter that has been trained.

TRL tokenises prompt and answer together; where that gives other ids than the proxy's rendering, the
run stops before its first step. Needs the extra `prefer`.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

from peft import PeftModel

from trainer.engines.peft import PeftTrained
from trainer.errors import PreflightError, TrainerError
from trainer.preferences import Judged, Pair, written
from trainer.recipe import PreferenceSettings
from trainer.rows import Row
from trainer.tokens import Encoder

try:
    from datasets import Dataset
    from transformers import PreTrainedTokenizerFast
    from trl import DPOConfig, DPOTrainer, KTOConfig, KTOTrainer
except ImportError as error:
    raise TrainerError(f"preferences need TRL ({error}); install the extra `prefer`") from error


def dpo(
    model: PeftModel,
    encoder: Encoder,
    pairs: Sequence[Pair],
    settings: PreferenceSettings,
    run: Path,
    seed: int,
) -> PeftTrained:
    """Make the chosen answers likelier than the rejected ones; what the adapter was is the
    reference. An SFT term on the chosen ones keeps them from falling together."""
    rows = [
        {
            "prompt": written(encoder, pair.chosen).prompt,
            "chosen": written(encoder, pair.chosen).answer,
            "rejected": written(encoder, pair.rejected).answer,
        }
        for pair in pairs
    ]
    config = DPOConfig(
        **_common(settings, run, seed),
        beta=settings.beta,
        loss_type=["sigmoid", "sft"],
        loss_weights=[1.0, settings.sft],
    )
    trainer = DPOTrainer(
        model=model,
        args=config,
        train_dataset=Dataset.from_list(rows),
        processing_class=_tokenizer(encoder, pairs[0].chosen),
    )
    for pair, ids in zip(pairs, trainer.train_dataset, strict=True):
        _require_same(encoder, pair.chosen, ids["prompt_ids"], ids["chosen_ids"])
        _require_same(encoder, pair.rejected, ids["prompt_ids"], ids["rejected_ids"])
    return _trained(trainer, encoder, pairs[0].chosen)


def kto(
    model: PeftModel,
    encoder: Encoder,
    judged: Sequence[Judged],
    settings: PreferenceSettings,
    run: Path,
    seed: int,
) -> PeftTrained:
    """Make good answers likelier and bad ones less so, without pairs."""
    rows = [
        {
            "prompt": written(encoder, one.row).prompt,
            "completion": written(encoder, one.row).answer,
            "label": one.good,
        }
        for one in judged
    ]
    trainer = KTOTrainer(
        model=model,
        args=KTOConfig(**_common(settings, run, seed), beta=settings.beta),
        train_dataset=Dataset.from_list(rows),
        processing_class=_tokenizer(encoder, judged[0].row),
    )
    for one, ids in zip(judged, trainer.train_dataset, strict=True):
        _require_same(encoder, one.row, ids["prompt_ids"], ids["completion_ids"])
    return _trained(trainer, encoder, judged[0].row)


def _common(settings: PreferenceSettings, run: Path, seed: int) -> dict[str, Any]:
    """What TRL is told either way. Nothing is cut: rows that are too long were left out."""
    return {
        "output_dir": str(run),
        "learning_rate": settings.learning_rate,
        "num_train_epochs": settings.epochs,
        "per_device_train_batch_size": settings.micro_rows,
        "gradient_accumulation_steps": max(1, settings.batch_rows // settings.micro_rows),
        "max_length": None,
        "seed": seed,
        "logging_steps": 1,
        "save_strategy": "no",
        "report_to": [],
        "gradient_checkpointing": False,
        "bf16": False,
        "dataloader_pin_memory": False,
    }


def _tokenizer(encoder: Encoder, row: Row) -> Any:
    """The base's tokenizer in transformers' clothes; padding is masked by length, not by id."""
    end = encoder.format(row).end
    return PreTrainedTokenizerFast(
        tokenizer_object=encoder.base.tokenizer, eos_token=end, pad_token=end
    )


def _require_same(encoder: Encoder, row: Row, prompt: list[int], answer: list[int]) -> None:
    example = encoder(row)
    if [*prompt, *answer] != example.ids or len(prompt) != example.prompt:
        raise PreflightError(
            f"row {row.id} ({row.source}): TRL makes other ids of it than the proxy; drop the pair"
        )


def _trained(trainer: Any, encoder: Encoder, row: Row) -> PeftTrained:
    trainer.train()
    model = trainer.model
    if "ref" in model.peft_config:
        model.delete_adapter("ref")
    return PeftTrained(model.eval(), encoder.end(row)[0])
