"""`make result-docs`: an adapter trained on documentation, and what it is worth, on a page.

documentation ─import→ rows ─cut to the time→ train ─serve→ a hundred questions, base and adapter
"""

from __future__ import annotations

import argparse
import datetime
import re
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import NamedTuple

import msgspec
import yaml

sys.path.insert(0, str(Path(__file__).parent))

from demo import ROOT, run, server

from proxy.protocol import champions
from proxy.protocol.base_model import BaseModel
from proxy.protocol.formats.base import template
from proxy.protocol.openai import Message
from trainer import docs_benchmark, rows
from trainer.benchmarks import python_docs
from trainer.docs_benchmark import Compared, DocsReport, compare
from trainer.engines.journal import METRICS, Line
from trainer.rows import Row
from trainer.scorers.docs import MARKS
from trainer.tokens import Encoder

TRAINER = str(Path(sys.executable).parent / "headrace-trainer")
CATEGORIES = ("basic", "error_handling", "advanced", "performance", "best_practice")


def main() -> None:
    options = _options()
    run_directory = options.out.absolute()
    run_directory.mkdir(parents=True, exist_ok=True)
    recipe = run_directory / "recipe.yaml"
    read, kept = _rows(options, run_directory, recipe)
    adapters = run_directory / "adapters"
    if not list(adapters.glob("docs-v*")):
        where = ("--out", str(run_directory / "train"), "--adapters", str(adapters))
        run(TRAINER, "train", "--recipe", str(recipe), *where)
    bundle = sorted(adapters.glob("docs-v*"))[-1]
    base, expert = _asked(bundle, run_directory, options.questions)
    page = options.results / f"{datetime.date.today()}-docs-expert.md"
    spent = _spent(run_directory / "train" / METRICS)
    page.write_text(_page(base, expert, bundle.name, read, kept, spent, options))
    print(page)


def _options() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--out", type=Path, default=ROOT / "runs" / "docs")
    parser.add_argument("--recipe", default="docs")
    parser.add_argument("--minutes", type=float, default=60, help="of training; cuts the rows")
    parser.add_argument("--questions", type=int, default=100)
    parser.add_argument("--results", type=Path, default=ROOT / "docs" / "results")
    parser.add_argument("--tokens-per-second", type=float, default=400, help="of this machine")
    parser.add_argument("--note", default="", help="a sentence for the page, such as what else ran")
    return parser.parse_args()


# ------------------------------------------------------------------ rows


def _rows(options: argparse.Namespace, directory: Path, recipe: Path) -> tuple[int, int]:
    """Write the rows that the time allows, and a recipe that reads them; (read, kept)."""
    everything = directory / "all.jsonl"
    if not everything.exists():
        # Exit 1 says that something could not be read; the rest is there.
        subprocess.run(
            [TRAINER, "import", "--recipe", options.recipe, "--out", everything], check=False
        )
    found = sorted(rows.read(everything), key=lambda row: row.id)
    settings = yaml.safe_load(_source(options.recipe).read_text())
    passes = settings["training"].get("epochs", 1)
    budget = options.minutes * 60 * options.tokens_per_second / passes
    kept = list(_within(budget, found, settings))
    rows.write(directory / "rows.jsonl", kept)
    rows.write(directory / "benchmark.jsonl", _benchmark())
    license = settings["sources"][0]["license"]
    paths = [str(directory / "rows.jsonl")]
    settings["sources"] = [
        {"kind": "jsonl", "paths": paths, "format": "headrace", "license": license}
    ]
    asked = settings["sources"][0] | {"paths": [str(directory / "benchmark.jsonl")]}
    decontaminate = {"sets": [asked]}
    settings.setdefault("filters", {})["decontaminate"] = decontaminate
    recipe.write_text(yaml.safe_dump(settings))
    return len(found), len(kept)


def _source(recipe: str) -> Path:
    shipped = ROOT / "trainer" / "recipes" / f"{recipe}.yaml"
    return shipped if shipped.exists() else Path(recipe)


def _within(budget: float, found: list[Row], settings: dict) -> list[Row]:
    """Rows, of each library in turn, whose tokens fit the budget, each once."""
    base = BaseModel.find(settings.get("base_model", "smollm2-135m-instruct"))
    encode = Encoder(base, template(settings["template"]), settings["format"])
    most, kept, spent = settings["training"]["max_tokens"], [], 0
    for row in _in_turn(found):
        tokens = len(encode(row).ids)
        if tokens <= most and spent + tokens <= budget:
            kept.append(row)
            spent += tokens
    return kept


def _in_turn(found: list[Row]) -> Iterator[Row]:
    """One of each library, then another one of each: the large ones do not crowd out the others."""
    libraries: dict[str, list[Row]] = {}
    for row in found:
        libraries.setdefault(re.split(r"[ .:]", row.group)[0], []).append(row)
    for number in range(max(map(len, libraries.values()), default=0)):
        yield from (of[number] for of in libraries.values() if number < len(of))


def _benchmark() -> list[Row]:
    """The questions and references as rows, to keep them out of the training."""
    return [
        Row(
            messages=[Message(role="user", content=question.question)],
            functions=[],
            text=question.reference,
            source=f"benchmark:{question.id}",
            license="Apache-2.0",
            group=question.id,
        )
        for question in python_docs()
    ]


# ------------------------------------------------------------------ answers


def _asked(bundle: Path, directory: Path, questions: int) -> tuple[DocsReport, DocsReport]:
    """The base's and the adapter's answers, through the proxy; those that are there are kept."""
    champions.appoint(bundle.parent, "docs", bundle.name, "to be asked")
    answers = directory / "answers"
    changes = {
        "adapters: adapters ": f"adapters: {bundle.parent} ",
        "\n  chat:\n    plan:": "\n  docs:\n    plan:",
        "chat: chat ": "chat: docs ",
        "preload: true ": "preload: false ",
    }
    asked = {name: answers / f"{name}-python-docs.json" for name in (bundle.name, "base")}
    with server(directory, changes) as base_url:
        for name in (name for name, report in asked.items() if not report.exists()):
            where = ("--base-url", base_url, "--concurrency", "6", "--out", str(answers))
            where += ("--most", str(questions), "--subject", name)
            run(TRAINER, "evaluate", "--benchmark", "python-docs", *where)
    return docs_benchmark.read(asked["base"]), docs_benchmark.read(asked[bundle.name])


# ------------------------------------------------------------------ the page


class Spent(NamedTuple):
    """What the training took."""

    steps: int
    tokens: int
    """Padding included."""
    seconds: float


def _spent(metrics: Path) -> Spent:
    lines = [msgspec.json.decode(line, type=Line) for line in metrics.read_bytes().splitlines()]
    seconds = sum(line.tokens / line.tok_s for line in lines)
    return Spent(len(lines), sum(line.tokens for line in lines), seconds)


def _page(
    base: DocsReport,
    expert: DocsReport,
    name: str,
    read: int,
    kept: int,
    spent: Spent,
    options: argparse.Namespace,
) -> str:
    head = f"# A documentation expert: {name} beside its base\n"
    made = (
        f"{datetime.date.today()}. SmolLM2-135M-Instruct, LoRA, trained on {kept} of {read} rows of"
        f" documentation: {spent.steps} steps, {spent.tokens:,} tokens in {spent.seconds / 60:.0f}"
        f" minutes. {options.note} Served by the embedded engine, and asked"
        f" {len(base.answers)} questions of `trainer/benchmarks/python_docs_100.yaml`, greedily."
        f" No answer came to {base.unanswered} of the base's and {expert.unanswered} of {name}'s."
        " Judged by"
        " execution alone ([evaluation](../evaluation.md)). 95 % intervals: Wilson for shares,"
        " Tango for differences; exact paired p.\n"
    )
    marks = _table([(mark, compare(expert, base, mark)) for mark in (*MARKS, "good")], name)
    by = [(category, compare(expert, base, "correct", category)) for category in CATEGORIES]
    return "\n".join(
        [
            head,
            made,
            marks,
            "",
            "## Correct, by category",
            "",
            "With 10 to 30 questions a category can show large differences only.",
            "",
            _table(by, name),
            "",
            "Made by `make result-docs`.",
            "",
        ]
    )


def _table(compared: list[tuple[str, Compared]], name: str) -> str:
    lines = [f"| | base | {name} | difference | p |", "|---|---|---|---|---|"]
    for mark, found in compared:
        low, high = 100 * found.interval.low, 100 * found.interval.high
        lines.append(
            f"| {mark.replace('_', ' ')} | {found.second} | {found.first} |"
            f" {100 * found.gain:+.0f} points [{low:+.0f}, {high:+.0f}] | {found.p:.2g} |"
        )
    return "\n".join(lines)


if __name__ == "__main__":
    main()
