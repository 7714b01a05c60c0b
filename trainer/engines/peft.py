"""Training with transformers and PEFT, on the CPU, one GPU, or several of them."""

from __future__ import annotations

from collections.abc import Sequence
from contextlib import nullcontext
from pathlib import Path

import torch
from peft import LoraConfig, PeftModel, get_peft_model

from proxy.protocol.base_model import BaseModel
from proxy.protocol.formats import FORMATS
from trainer.batches import plan
from trainer.engines import base_weights
from trainer.engines.loop import Loop, Loss
from trainer.engines.loss import cross_entropy
from trainer.engines.team import Team
from trainer.recipe import DecodingSettings, LoraSettings, Recipe
from trainer.tokens import Example
from trainer.validation import Marks, Validation

_ASKED = 16
"""Validation rows that are answered together."""


class PeftEngine:
    """LoRA by PEFT over a frozen base."""

    def __init__(self, loss: Loss = cross_entropy) -> None:
        self._loss = loss

    def train(
        self,
        base: BaseModel,
        examples: Sequence[Example],
        recipe: Recipe,
        run: Path,
        validation: Validation | None = None,
    ) -> PeftTrained:
        team = Team.joined()
        torch.manual_seed(recipe.seed)
        model = get_peft_model(
            base_weights.load(base, recipe.training.precision),
            lora_config(recipe.lora),
            autocast_adapter_dtype=False,
        )
        return fit(model, base, examples, recipe, run, validation, self._loss, team)


def fit(
    model: PeftModel,
    base: BaseModel,
    examples: Sequence[Example],
    recipe: Recipe,
    run: Path,
    validation: Validation | None,
    loss: Loss = cross_entropy,
    team: Team | None = None,
) -> PeftTrained:
    """Train a PEFT model, whoever made it."""
    trained = PeftTrained(model, base.encode(FORMATS[recipe.format].end)[0])
    watched = validation if validation is not None and validation.examples else None
    Loop(
        model,
        plan(examples, recipe.training, recipe.seed),
        recipe,
        run,
        base_sha256=base.sha256,
        judge=(lambda: _marks(trained, watched, recipe.decoding)) if watched else None,
        loss=loss,
        team=team,
    ).fit()
    model.eval()
    return trained


class PeftTrained:
    """A PEFT model, in or after training."""

    def __init__(self, model: PeftModel, end: int) -> None:
        """`end`: the token that ends an answer."""
        self.model = model
        self._end = end

    def save(self, directory: Path) -> None:
        self.model.save_pretrained(directory, safe_serialization=True)

    def greedy(self, prompt: Sequence[int], most: int, adapter: bool = True) -> list[int]:
        with nullcontext() if adapter else self.model.disable_adapter():
            return self.said(prompt, most)

    def said(self, prompt: Sequence[int], most: int) -> list[int]:
        """The greedy answer of the model as it is."""
        (answer,) = self.answers([prompt], DecodingSettings(max_new_tokens=most))
        return answer

    @torch.inference_mode()
    def answers(
        self, prompts: Sequence[Sequence[int]], decoding: DecodingSettings
    ) -> list[list[int]]:
        """Ids of the answers, up to and with the end of their turn."""
        longest = max(map(len, prompts))
        ids = [[self._end] * (longest - len(p)) + list(p) for p in prompts]
        mask = [[0] * (longest - len(p)) + [1] * len(p) for p in prompts]
        drawn = {"temperature": decoding.temperature, "top_p": decoding.top_p}
        generated = self.model.generate(
            input_ids=torch.tensor(ids, device=self.model.device),
            attention_mask=torch.tensor(mask, device=self.model.device),
            max_new_tokens=decoding.max_new_tokens,
            do_sample=decoding.temperature > 0,
            repetition_penalty=decoding.repetition_penalty,
            eos_token_id=self._end,
            pad_token_id=self._end,
            use_cache=True,
            **(drawn if decoding.temperature > 0 else {}),
        )
        return [_cut(answer, self._end) for answer in generated[:, longest:].tolist()]


def _cut(answer: list[int], end: int) -> list[int]:
    """Without the padding that follows an answer shorter than its neighbours."""
    return answer[: answer.index(end) + 1] if end in answer else answer


@torch.inference_mode()
def _marks(trained: PeftTrained, validation: Validation, decoding: DecodingSettings) -> Marks:
    prompts, answers = validation.prompts, []
    # Neighbours in length pad little; the order is put back below.
    order = sorted(range(len(prompts)), key=lambda i: len(prompts[i]))
    for start in range(0, len(order), _ASKED):
        asked = [prompts[i] for i in order[start : start + _ASKED]]
        answers += trained.answers(asked, decoding)
    by_row = [answer for _, answer in sorted(zip(order, answers, strict=True))]
    loss = sum(cross_entropy(trained.model, [e]).item() for e in validation.examples)
    supervised = sum(len(e.completion) for e in validation.examples)
    return validation.marks(by_row, loss / supervised)


def lora_config(settings: LoraSettings) -> LoraConfig:
    """PEFT's own form of the adapter's shape."""
    return LoraConfig(
        r=settings.rank,
        lora_alpha=settings.alpha,
        lora_dropout=settings.dropout,
        target_modules=list(settings.targets),
        use_rslora=settings.rslora,
        task_type="CAUSAL_LM",
    )


ENGINE = PeftEngine()
"""What `training.engine: peft` names."""
