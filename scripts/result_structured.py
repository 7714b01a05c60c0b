"""300 rows teach structured calls: the base model and its adapter on questions held out, on a CPU.

    make result-structured          some 40 minutes on one core

Rows come from the Berkeley Function Calling Leaderboard (package `bfcl-eval`), split by tool: one
test side asks other questions about tools of the training, the other about tools that training
never showed. Nothing is tuned on the test rows; the checkpoint is chosen on the validation rows.
"""

from __future__ import annotations

import argparse
import datetime
import json
import random
import tempfile
from collections.abc import Iterator, Sequence
from contextlib import nullcontext
from pathlib import Path

import msgspec
import torch

from proxy.protocol.base_model import BaseModel
from trainer import dataset, pipeline, preflight, registry
from trainer.dataset import Dataset
from trainer.engines.peft import PeftEngine, PeftTrained
from trainer.evaluate import Figure
from trainer.recipe import Recipe
from trainer.recipe import find as find_recipe
from trainer.rows import Row
from trainer.scorers.toolcall import score
from trainer.sources.base import Skips
from trainer.tokens import Encoder
from trainer.validation import Validation

TRAIN, TEST = 300, 60
SIDES = {"seen": "tools of the training", "unseen": "tools held out"}
SUBJECTS = ("base", "base, call begun for it", "adapter")
FIGURES = ("exact match", "call exact", "call match", "tool name", "valid call")
BATCH = 12


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--out", type=Path, default=Path("docs/results"))
    parser.add_argument("--run", type=Path, help="directory that is kept; a stopped run goes on")
    options = parser.parse_args()
    run = options.run or Path(tempfile.mkdtemp())
    run.mkdir(parents=True, exist_ok=True)
    recipe = find_recipe("pitch-cpu")
    built = chosen(recipe, run)
    trained, encoder = train(recipe, built, run)
    figures = {
        (side, subject): measured(trained, encoder, recipe, getattr(built, side), subject)
        for side in SIDES
        for subject in SUBJECTS
    }
    options.out.mkdir(parents=True, exist_ok=True)
    day = datetime.date.today().isoformat()
    path = options.out / f"{day}-structured.md"
    path.write_text(page(recipe, built, run, figures))
    print(path.read_text())


def chosen(recipe: Recipe, run: Path) -> Dataset:
    """300 training rows that are short enough, all validation rows, and 60 of each test side."""
    pipeline.build(recipe, run / "dataset", Skips())
    built = dataset.read(run / "dataset")
    encoder = Encoder.of(recipe, BaseModel.find(recipe.base_model))
    chance = random.Random(recipe.seed)

    def some(rows: Sequence[Row], count: int) -> list[Row]:
        most = recipe.training.max_tokens
        fit = [row for row in rows if row.calls and len(encoder(row).ids) <= most]
        return chance.sample(fit, min(count, len(fit)))

    return msgspec.structs.replace(
        built,
        train=some(built.train, TRAIN),
        validation=some(built.validation, TEST),
        seen=some(built.seen, TEST),
        unseen=some(built.unseen, TEST),
    )


def train(recipe: Recipe, built: Dataset, run: Path) -> tuple[PeftTrained, Encoder]:
    base = BaseModel.find(recipe.base_model)
    encoder = Encoder.of(recipe, base)
    rows = [*built.train, *built.validation, *built.seen, *built.unseen]
    preflight.require(preflight.checks(recipe, encoder, rows, run))
    validation = Validation(built.validation, encoder, recipe.training.max_tokens)
    examples = [encoder(row) for row in built.train]
    return PeftEngine().train(base, examples, recipe, run, validation), encoder


def measured(
    trained: PeftTrained, encoder: Encoder, recipe: Recipe, rows: Sequence[Row], subject: str
) -> dict[str, Figure]:
    """The figures of one subject on one side."""
    begun = '{"tool_name": "' if "begun" in subject else ""
    with nullcontext() if subject == "adapter" else trained.model.disable_adapter():
        texts = list(answers(trained, encoder, recipe, rows, begun))
    counted = [worth(encoder, row, text) for row, text in zip(rows, texts, strict=True)]
    return {name: Figure.of(sum(one[name] for one in counted), len(counted)) for name in FIGURES}


def answers(
    trained: PeftTrained, encoder: Encoder, recipe: Recipe, rows: Sequence[Row], begun: str
) -> Iterator[str]:
    """What is said to each row, with what was begun for it."""
    decode = encoder.base.tokenizer.decode
    for start in range(0, len(rows), BATCH):
        some = rows[start : start + BATCH]
        prompts = [encoder.prompt(row) + encoder.base.encode(begun) for row in some]
        for ids in trained.answers(prompts, recipe.decoding):
            yield begun + decode(ids, skip_special_tokens=True)


def worth(encoder: Encoder, row: Row, text: str) -> dict[str, bool]:
    marks = score(row, encoder.format(row).parse(text))
    return {
        "exact match": marks.call_exact and echoed(text) == row.question,
        "call exact": marks.call_exact,
        "call match": marks.call_match,
        "tool name": marks.tool_name,
        "valid call": marks.json_valid and marks.called,
    }


def echoed(text: str) -> object:
    """What the answer says the user asked."""
    try:
        written = json.loads(text)
    except ValueError:
        return None
    return written.get("query") if isinstance(written, dict) else None


def page(
    recipe: Recipe,
    built: Dataset,
    run: Path,
    figures: dict[tuple[str, str], dict[str, Figure]],
) -> str:
    """The result as it stands in docs/results."""
    lines = [json.loads(line) for line in (run / "metrics.jsonl").read_text().splitlines()]
    tokens = sum(line["tokens"] for line in lines)
    speed = sorted(line["tok_s"] for line in lines)[len(lines) // 2]
    watched = ", ".join(
        f"step {line['step'] + 1}: {line['call_exact']:.0%}"
        for line in lines
        if "call_exact" in line
    )
    versions = ", ".join(f"{name} {version}" for name, version in registry.versions().items())
    tables = "\n\n".join(table(side, figures) for side in SIDES)
    return f"""# 300 rows of structured calls, base and adapter

SmolLM2-135M-Instruct, recipe `pitch-cpu`, seed {recipe.seed}; {len(built.train)} training rows,
{len(built.validation)} validation rows, tests of {len(built.seen)} and {len(built.unseen)} rows.
Greedy, unconstrained, at most {recipe.decoding.max_new_tokens} tokens. 95 % Wilson intervals.
Command: `make result-structured`. {torch.get_num_threads()} thread(s); {versions}.

*Exact match* is the pitch's: the object's three keys, `arguments`, `query` and `tool_name`, all
right. *Call exact* leaves the query out; *call match* has BFCL's leniency. `base, call begun for
it` is the base with `{{"tool_name": "` already written, so that it cannot chat instead.

{tables}

Training: {len(lines)} steps, {tokens:,} tokens with padding, median
{speed:,.0f} tokens/s beside other work. Validation, call exact: {watched}.
"""


def table(side: str, figures: dict[tuple[str, str], dict[str, Figure]]) -> str:
    lines = [
        f"| {SIDES[side]} | {' | '.join(SUBJECTS)} |",
        "|---" * (len(SUBJECTS) + 1) + "|",
    ]
    for name in FIGURES:
        shown = (str(figures[side, subject][name]).strip() for subject in SUBJECTS)
        lines.append(f"| {name} | {' | '.join(shown)} |")
    return "\n".join(lines)


if __name__ == "__main__":
    main()
