"""Training speed beside TRL's SFTTrainer with its defaults: same rows, same model, same processor.

    make bench-trainer           some 10 minutes on two cores

Both get SmolLM2-135M in bf16, LoRA of rank 16 on all linears, the same rows as the same token ids,
and eight rows a step. Steps are taken turn about, so that other work on the machine hits both; the
first turn of each is thrown away. Counted are real tokens, without padding.
"""

from __future__ import annotations

import argparse
import json
import platform
import random
import statistics
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import torch
from datasets import Dataset
from peft import PeftModel, get_peft_model
from transformers import PreTrainedTokenizerFast
from trl import SFTConfig, SFTTrainer

from proxy.protocol.base_model import BaseModel
from trainer import dataset, pipeline, registry
from trainer.batches import Size, steps
from trainer.engines import base_weights
from trainer.engines.loss import cross_entropy
from trainer.engines.optimizer import Optimizer
from trainer.engines.peft import lora_config
from trainer.recipe import Recipe, TrainingSettings
from trainer.recipe import find as find_recipe
from trainer.rows import Row
from trainer.sources.base import Skips
from trainer.tokens import Encoder, Example

ROWS = 8
"""In one step."""


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--turns", type=int, default=8, help="measured steps of each")
    options = parser.parse_args()
    recipe = find_recipe("pitch-cpu")
    base = BaseModel.find(recipe.base_model)
    encoder = Encoder.of(recipe, base)
    # Our last step may be short, so that there are rows for one more.
    rows = chosen(recipe, encoder, ROWS * (options.turns + 3))
    examples = [encoder(row) for row in rows]
    sides = {
        "ours": ours(base, examples, recipe),
        "TRL": trl(base, encoder, rows, recipe),
    }
    seconds: dict[str, list[float]] = {name: [] for name in sides}
    tokens: dict[str, list[int]] = {name: [] for name in sides}
    for _ in range(options.turns + 1):
        for name, side in sides.items():
            began = time.monotonic()
            tokens[name].append(next(side))
            seconds[name].append(time.monotonic() - began)
    print(told(seconds, tokens))


def chosen(recipe: Recipe, encoder: Encoder, count: int) -> list[Row]:
    with tempfile.TemporaryDirectory() as directory:
        pipeline.build(recipe, Path(directory), Skips())
        built = dataset.read(Path(directory))
    most = recipe.training.max_tokens
    return random.Random(0).sample(
        [row for row in built.train if len(encoder(row).ids) <= most], count
    )


def model(base: BaseModel, recipe: Recipe) -> PeftModel:
    torch.manual_seed(0)
    weights = base_weights.load(base, "bf16")
    return get_peft_model(weights, lora_config(recipe.lora), autocast_adapter_dtype=False)


def ours(base: BaseModel, examples: list[Example], recipe: Recipe) -> Iterator[int]:
    """Takes a step each time, and says of how many tokens."""
    trained = model(base, recipe)
    trained.train()
    optimizer = Optimizer(trained, TrainingSettings(), 1000)
    for step in steps(examples, Size(2048), Size(rows=ROWS), random.Random(0)):
        supervised = sum(len(e.completion) for micro in step for e in micro)
        for micro in step:
            (cross_entropy(trained, micro) / supervised).backward()
        optimizer.step()
        yield sum(len(e.ids) for micro in step for e in micro)
    while True:
        yield 0


def trl(base: BaseModel, encoder: Encoder, rows: list[Row], recipe: Recipe) -> Iterator[int]:
    """The same with SFTTrainer's own step: its collator, its loss, its optimizer."""
    end = encoder.format(rows[0]).end
    tokenizer = PreTrainedTokenizerFast(
        tokenizer_object=base.tokenizer, eos_token=end, pad_token=end
    )
    texts = [{"prompt": encoder.text(r), "completion": encoder.written(r)} for r in rows]
    with tempfile.TemporaryDirectory() as directory:
        config = SFTConfig(
            output_dir=directory,
            report_to=[],
            save_strategy="no",
            bf16=False,
            dataloader_pin_memory=False,
            per_device_train_batch_size=ROWS,
        )
        trainer = SFTTrainer(
            model=model(base, recipe),
            args=config,
            train_dataset=Dataset.from_list(texts),
            processing_class=tokenizer,
        )
        batches = iter(trainer.get_train_dataloader())
        trainer.create_optimizer_and_scheduler(1000)
        # What `train` sets before its first step.
        trainer.current_gradient_accumulation_steps = 1
        trainer.model.train()
        yield from stepped(trainer, batches)


def stepped(trainer: Any, batches: Iterator[Any]) -> Iterator[int]:
    for batch in batches:
        trainer.training_step(trainer.model, batch)
        torch.nn.utils.clip_grad_norm_(trainer.model.parameters(), 1.0)
        trainer.optimizer.step()
        trainer.optimizer.zero_grad()
        yield int(batch["attention_mask"].sum())


def told(seconds: dict[str, list[float]], tokens: dict[str, list[int]]) -> str:
    """The figures, in Markdown."""
    lines = [
        f"{platform.processor() or platform.machine()}, {torch.get_num_threads()} thread(s);"
        f" {json.dumps(registry.versions())}",
        "",
        "| | steps | tokens/s, median | slowest to fastest step |",
        "|---|---|---|---|",
    ]
    medians = {}
    for name, spent in seconds.items():
        speeds = [n / s for n, s in zip(tokens[name][1:], spent[1:], strict=True) if n]
        medians[name] = statistics.median(speeds)
        shown = f"{min(speeds):,.0f} to {max(speeds):,.0f}"
        lines.append(f"| {name} | {len(speeds)} | {medians[name]:,.0f} | {shown} |")
    return "\n".join([*lines, "", f"Ratio of the medians: {medians['ours'] / medians['TRL']:.2f}"])


if __name__ == "__main__":
    main()
