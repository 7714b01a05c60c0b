"""Training with transformers and PEFT: a plain loop, on the CPU or one GPU.

Only supervised positions reach the output layer: with 49,152 or 128,256 words of vocabulary, the
logits of a prompt would take more memory than the model.
"""

from __future__ import annotations

import math
import random
import time
from collections.abc import Iterator, Sequence
from contextlib import nullcontext
from pathlib import Path
from typing import NamedTuple

import msgspec
import torch
from peft import LoraConfig, PeftModel, get_peft_model
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn
from torch.nn import functional

from proxy.protocol.base_model import BaseModel
from trainer.batches import MicroBatch, Step, padded, steps
from trainer.engines import base_weights
from trainer.errors import TrainingError
from trainer.recipe import LoraSettings, Recipe, TrainingSettings
from trainer.tokens import Example

_ROUND = 32
"""Micro-batches are as long as a multiple of this: on CPUs each new shape makes oneDNN keep another
set of kernels, and a run with hundreds of shapes grew by gigabytes (docs/LOG.md)."""

_FLOOR = 0.1
"""The learning rate ends at this share of its peak."""


class Measured(NamedTuple):
    """One step: mean loss over its supervised tokens, and tokens (padding included)."""

    loss: float
    tokens: int


class PeftEngine:
    """LoRA by PEFT over a frozen bf16 base."""

    def train(
        self, base: BaseModel, examples: Sequence[Example], recipe: Recipe, run: Path
    ) -> PeftTrained:
        torch.manual_seed(recipe.seed)
        model = get_peft_model(
            base_weights.load(base, torch.bfloat16),
            _lora(recipe.lora),
            autocast_adapter_dtype=False,
        )
        model.to("cuda" if torch.cuda.is_available() else "cpu")
        settings = recipe.training
        plan = steps(
            examples, settings.micro_tokens, settings.batch_tokens, random.Random(recipe.seed)
        )
        _fit(model, plan, settings, run)
        return PeftTrained(model.eval(), base)


class Master:
    """fp32 copies of bf16 parameters for the optimizer, so that small steps are not rounded away.

    The forward pass stays in bf16 throughout, which is faster than fp32 adapters on a bf16 base.
    """

    def __init__(self, parameters: Sequence[torch.nn.Parameter]) -> None:
        self._parameters = parameters
        self.copies = [torch.nn.Parameter(p.detach().float()) for p in parameters]

    def take_gradients(self) -> None:
        for parameter, copy in zip(self._parameters, self.copies, strict=True):
            copy.grad = parameter.grad.float() if parameter.grad is not None else None
            parameter.grad = None

    @torch.no_grad()
    def give_back(self) -> None:
        for parameter, copy in zip(self._parameters, self.copies, strict=True):
            parameter.copy_(copy)


class PeftTrained:
    """A PEFT model after training."""

    def __init__(self, model: PeftModel, base: BaseModel) -> None:
        self._model = model
        self._end = base.encode("<|im_end|>")[0]

    def save(self, directory: Path) -> None:
        self._model.save_pretrained(directory, safe_serialization=True)

    @torch.inference_mode()
    def greedy(self, prompt: Sequence[int], most: int, adapter: bool = True) -> list[int]:
        ids = torch.tensor([list(prompt)], device=self._model.device)
        with nullcontext() if adapter else self._model.disable_adapter():
            answer = self._model.generate(
                input_ids=ids,
                attention_mask=torch.ones_like(ids),
                max_new_tokens=most,
                do_sample=False,
                eos_token_id=self._end,
                pad_token_id=self._end,
            )
        continued: list[int] = answer[0, len(prompt) :].tolist()
        return continued


def _lora(settings: LoraSettings) -> LoraConfig:
    return LoraConfig(
        r=settings.rank,
        lora_alpha=settings.alpha,
        lora_dropout=settings.dropout,
        target_modules=list(settings.targets),
        task_type="CAUSAL_LM",
    )


# ------------------------------------------------------------------ the loop


def _fit(model: PeftModel, plan: Sequence[Step], settings: TrainingSettings, run: Path) -> None:
    master = Master([p for p in model.parameters() if p.requires_grad])
    optimizer = torch.optim.AdamW(
        master.copies, lr=settings.learning_rate, weight_decay=settings.weight_decay
    )
    schedule = torch.optim.lr_scheduler.LambdaLR(
        optimizer, lambda step: _rate(step, len(plan), settings.warmup)
    )
    model.train()
    with (run / "metrics.jsonl").open("wb") as log, _progress() as progress:
        bar = progress.add_task("training", total=len(plan), shown="")
        for number, step in enumerate(plan):
            began = time.monotonic()
            measured = _step(model, step)
            master.take_gradients()
            torch.nn.utils.clip_grad_norm_(master.copies, settings.clip)
            optimizer.step()
            schedule.step()
            master.give_back()
            speed = measured.tokens / (time.monotonic() - began)
            progress.update(bar, advance=1, shown=f"loss {measured.loss:.3f}  {speed:,.0f} tok/s")
            log.write(
                msgspec.json.encode({"step": number, **measured._asdict(), "tok_s": speed}) + b"\n"
            )
            log.flush()


def _progress() -> Progress:
    columns = (TextColumn("{task.description}"), BarColumn(), MofNCompleteColumn())
    return Progress(*columns, TextColumn("{task.fields[shown]}"), TimeRemainingColumn())


def _rate(step: int, total: int, warmup: float) -> float:
    rising = max(1, round(warmup * total))
    if step < rising:
        return (step + 1) / rising
    done = (step - rising) / max(1, total - rising)
    return _FLOOR + (1 - _FLOOR) * (1 + math.cos(math.pi * done)) / 2


def _step(model: PeftModel, step: Step) -> Measured:
    """Gradients of one step. Each supervised token weighs the same, whatever its micro-batch."""
    supervised = sum(len(example.completion) for micro in step for example in micro)
    loss = 0.0
    for micro in step:
        part = _loss(model, micro) / supervised
        part.backward()  # type: ignore[no-untyped-call]
        loss += part.item()
    if not math.isfinite(loss):
        raise TrainingError("the loss is no number any more; lower `training.learning_rate`")
    return Measured(loss, sum(map(padded, step)))


def _loss(model: PeftModel, micro: MicroBatch) -> torch.Tensor:
    """Cross-entropy summed over the completions' tokens."""
    longest = _ROUND * math.ceil(max(len(example.ids) for example in micro) / _ROUND)
    # Padding stands on the right and attention is causal: no real token ever looks at it, so that
    # no mask is needed (a mask would keep attention from its fast kernel), and it is never a label.
    ids = torch.tensor([e.ids + [0] * (longest - len(e.ids)) for e in micro], device=model.device)
    llama = model.get_base_model()
    hidden = llama.model(input_ids=ids, use_cache=False).last_hidden_state
    rows, columns = map(list, zip(*_predicting(micro), strict=True))
    logits = functional.linear(hidden[rows, columns], llama.lm_head.weight).float()
    labels = torch.tensor([t for e in micro for t in e.completion], device=model.device)
    return functional.cross_entropy(logits, labels, reduction="sum")


def _predicting(micro: MicroBatch) -> Iterator[tuple[int, int]]:
    """(row, column) of every position whose next token is supervised."""
    for row, example in enumerate(micro):
        for column in range(example.prompt - 1, len(example.ids) - 1):
            yield row, column
