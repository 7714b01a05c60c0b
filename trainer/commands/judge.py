"""headrace-trainer judge run, judge rate"""

from __future__ import annotations

import argparse
import asyncio
import os
import random
from collections.abc import Iterator
from pathlib import Path

import msgspec
from rich.table import Table

from proxy.protocol.base_model import cache_directory
from proxy.protocol.command_line import whole_number
from trainer import docs_benchmark
from trainer.benchmarks import python_docs
from trainer.commands.shared import Commands, console
from trainer.errors import JudgeError
from trainer.figures import Figure
from trainer.scorers.judge import ASPECTS, Contest, Judge, Judgement, mean_level
from trainer.trust import Rating, Trust, contests, examine, item, read_ratings


class Judged(msgspec.Struct, frozen=True, kw_only=True):
    """All judgements of two subjects, and whether they count."""

    first: str
    second: str
    trust: Trust
    judgements: list[Judgement]


def add(commands: Commands) -> None:
    """Add the command."""
    judge = commands.add_parser("judge", help="let a model, or a person, grade answers")
    kinds = judge.add_subparsers(required=True, metavar="KIND")
    run = kinds.add_parser("run", help="grade two subjects' answers to the benchmark by a model")
    run.add_argument("--base-url", required=True, help="any OpenAI-compatible endpoint")
    run.add_argument("--model", required=True, help="who judges, as the endpoint names it")
    run.add_argument(
        "--key-env", default="OPENAI_API_KEY", help="variable with the API key (%(default)s)"
    )
    run.add_argument("--ratings", type=Path, help="people's levels, by `judge rate`")
    run.add_argument("--out", type=Path, help="file for the judgements in JSON")
    run.set_defaults(run=_run)
    rate = kinds.add_parser("rate", help="grade answers yourself, without seeing whose they are")
    rate.add_argument("--by", required=True, help="your name in the ratings")
    rate.add_argument("--ratings", type=Path, required=True, help="file that the levels go to")
    rate.add_argument(
        "--count", type=whole_number(1, 10_000), default=50, help="answers to rate (%(default)s)"
    )
    rate.set_defaults(run=_rate)
    for kind in (run, rate):
        kind.add_argument("first", type=Path, help="report of `evaluate --benchmark`")
        kind.add_argument("second", type=Path, help="report of the other subject")


def _contests(options: argparse.Namespace) -> list[Contest]:
    first, second = map(docs_benchmark.read, (options.first, options.second))
    return contests(
        {answer.id: answer.text for answer in first.answers},
        {answer.id: answer.text for answer in second.answers},
        {one.id: (one.question, one.reference) for one in python_docs()},
    )


# ------------------------------------------------------------------ a model


def _run(options: argparse.Namespace) -> None:
    judged = asyncio.run(_judged(options))
    table = Table("", judged.first, judged.second, show_edge=False)
    for aspect in ASPECTS:
        levels = [mean_level(judged.judgements, aspect, side) for side in ("first", "second")]
        table.add_row(aspect.replace("_", " "), *(f"{level:.2f}" for level in levels))
    better: list[str] = [one.better for one in judged.judgements]
    for name, side in ((judged.first, "first"), (judged.second, "second"), ("neither", "tie")):
        console.print(f"better: {name} {Figure.of(better.count(side), len(better))}")
    console.print(table)
    _tell(judged.trust)
    if options.out:
        options.out.write_bytes(msgspec.json.format(msgspec.json.encode(judged)))


async def _judged(options: argparse.Namespace) -> Judged:
    key = os.environ.get(options.key_env, "none")
    cache = cache_directory() / "judgements"
    ratings = read_ratings(options.ratings) if options.ratings else []
    asked = _contests(options)
    async with Judge(options.base_url, options.model, cache, key) as judge:
        found = [await judge.judge(contest) for contest in asked]
        judgements = [one for one in found if one is not None]
        if not judgements:
            raise JudgeError(f"{options.model} gave no verdict that can be read")
        trust = await examine(judge, judgements, ratings)
    names = [str(docs_benchmark.read(path).subject) for path in (options.first, options.second)]
    return Judged(first=names[0], second=names[1], trust=trust, judgements=judgements)


def _tell(trust: Trust) -> None:
    console.print(f"both orders agree: {trust.consistent}")
    console.print(f"the answer shown first is preferred: {trust.position.preferred}")
    console.print(f"padding without content is preferred: {trust.length.preferred}")
    if trust.kappa is not None:
        console.print(f"agreement with people: weighted kappa {trust.kappa:.2f}, n={trust.rated}")
    if trust.counts:
        console.print(f"{trust.snapshot} counts.", style="bold")
        return
    console.print(f"{trust.snapshot} does not count:", style="bold")
    for reason in trust.reasons:
        console.print(f"  {reason}", highlight=False)


# ------------------------------------------------------------------ a person


def _rate(options: argparse.Namespace) -> None:
    """Ask for levels until enough answers are rated, or `q`; each answer is kept at once."""
    before = read_ratings(options.ratings) if options.ratings.exists() else []
    done = {rating.item for rating in before if rating.by == options.by}
    left = [one for one in _shuffled(_contests(options)) if one[0] not in done]
    options.ratings.parent.mkdir(parents=True, exist_ok=True)
    rated = 0
    for name, contest, text in left[: max(0, options.count - len(done))]:
        levels = _asked(contest, text, len(done) + rated + 1, options.count)
        if levels is None:
            break
        with options.ratings.open("ab") as file:
            for aspect, level in levels.items():
                given = Rating(item=name, aspect=aspect, level=level, by=options.by)
                file.write(msgspec.json.encode(given) + b"\n")
        rated += 1
    console.print(f"{len(done) + rated} answers are rated by {options.by}")


def _shuffled(asked: list[Contest]) -> list[tuple[str, Contest, str]]:
    """(name, contest, answer) in an order that tells nothing, the same at every start."""
    found = [
        (item(contest.id, side), contest, text)
        for contest in asked
        for side, text in (("first", contest.first), ("second", contest.second))
    ]
    random.Random(0).shuffle(found)
    return found


def _asked(contest: Contest, text: str, number: int, count: int) -> dict[str, int] | None:
    """A person's levels of one answer; None where they stop."""
    console.rule(f"{number} of {count}")
    for head, body in (("Question", contest.question), ("Reference", contest.reference)):
        _show(head, body)
    _show("Answer", text)
    levels: dict[str, int] = {}
    for aspect, level in _levels():
        if level is None:
            return None
        levels[aspect] = level
    return levels


def _show(head: str, body: str) -> None:
    console.print(head, style="bold")
    console.print(f"{body}\n", highlight=False)


def _levels() -> Iterator[tuple[str, int | None]]:
    for aspect, meaning in ASPECTS.items():
        console.print(f"{aspect.replace('_', ' ')}: {meaning}", highlight=False)
        yield aspect, _level()


def _level() -> int | None:
    while True:
        try:
            given = input("1-5, or q to stop: ").strip()
        except EOFError:
            return None
        if given == "q":
            return None
        if given in {"1", "2", "3", "4", "5"}:
            return int(given)
