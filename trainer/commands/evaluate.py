"""headrace-trainer evaluate"""

from __future__ import annotations

import argparse
import asyncio
import os
from collections.abc import Sequence
from functools import partial
from pathlib import Path

from rich.progress import Progress
from rich.table import Table

from proxy.protocol import adapter
from proxy.protocol.command_line import whole_number
from trainer import card, dataset, docs_benchmark, gate, regressions, sealed
from trainer.benchmarks import python_docs
from trainer.calibration import calibrate
from trainer.commands.shared import Commands, console
from trainer.dataset import SIDES
from trainer.errors import GateError, TrainerError
from trainer.evaluate import Asker, Report, balanced, disagreeing, evaluate, judged, write
from trainer.figures import Figure
from trainer.in_process import of_bundle
from trainer.pairs import pair
from trainer.registry import bundles
from trainer.rows import Row
from trainer.sandbox import Limits, Sandbox
from trainer.scorers.docs import MARKS
from trainer.served import Served
from trainer.subject import Subject


def add(commands: Commands) -> None:
    """Add the command."""
    judge = commands.add_parser("evaluate", help="ask a server a dataset's held-out rows")
    asked = judge.add_mutually_exclusive_group(required=True)
    asked.add_argument("--dataset", type=Path, help="directory of a dataset")
    asked.add_argument("--benchmark", choices=("python-docs",), help="ask its questions instead")
    asked.add_argument(
        "--probes", metavar="FILE", help="plain questions, or `general`: forgetting, canaries"
    )
    judge.add_argument(
        "--base-url", default="http://127.0.0.1:8080/v1", help="the proxy (%(default)s)"
    )
    judge.add_argument(
        "--subject",
        action="append",
        help="adapter id or `base`, with `!` for tool_choice required; `routed`: whom the proxy"
        " chooses; `cloud,backend=NAME`,"
        " `cloud,url=URL,model=NAME`; `,votes=5` and `,prompt=FILE` after any; may be repeated",
    )
    judge.add_argument("--key-env", default="", help="variable with the endpoint's key (none)")
    judge.add_argument(
        "--in-process", type=Path, help="bundle to ask in this process too, to compare the answers"
    )
    judge.add_argument(
        "--side",
        action="append",
        choices=(*SIDES[1:], dataset.SEALED),
        help="again for more (seen and unseen)",
    )
    judge.add_argument(
        "--verdict", type=Path, help="that the open sides were passed: opens the sealed side, once"
    )
    judge.add_argument(
        "--most",
        type=whole_number(1, 10**9),
        default=150,
        help="rows of a side, at most (%(default)s)",
    )
    judge.add_argument(
        "--concurrency", type=whole_number(1, 256), default=4, help="requests at once (%(default)s)"
    )
    judge.add_argument("--out", type=Path, help="directory for the reports in JSON")
    judge.add_argument("--describe", type=Path, help="bundle whose card shall show the figures")
    judge.add_argument(
        "--calibrate", type=Path, help="bundle that shall know how sure its calls must be"
    )
    judge.set_defaults(run=_evaluate)


def _evaluate(options: argparse.Namespace) -> None:
    if options.benchmark:
        _ask_about_docs(options)
        return
    if options.probes:
        _ask_probes(options)
        return
    held_out = dataset.read(options.dataset)
    reports = []
    for side in options.side or ["seen", "unseen"]:
        rows = balanced(_rows(held_out, side, options), options.most)
        for subject in map(Subject.parse, options.subject or ["base!", "base"]):
            key = os.environ.get(options.key_env, "none")
            asker = Served(options.base_url, subject, key)
            reports.append(_asked(rows, asker, subject, side, held_out, options))
        if options.in_process:
            reports.append(_in_process(rows, side, held_out, options))
            _compare(reports)
    console.print(_table(reports))
    _tell_routing(reports)
    if options.out:
        for report in reports:
            write(report, options.out / f"{_file_name(report)}.json")
    if options.calibrate:
        _calibrate(options.calibrate, held_out, reports)
    if options.describe:
        _describe(options.describe, held_out, reports)


def _ask_about_docs(options: argparse.Namespace) -> None:
    """Ask the documentation benchmark's questions, and run the answers in the sandbox."""
    questions = python_docs()[: options.most]
    place = Sandbox(Limits(seconds=20), preload=("numpy", "pandas", "requests"))
    reports = []
    for subject in map(Subject.parse, options.subject or ["base"]):
        key = os.environ.get(options.key_env, "none")
        with Progress(console=console, transient=True) as progress:
            bar = progress.add_task(str(subject), total=len(questions))
            asked = docs_benchmark.ask(
                questions,
                place,
                base_url=options.base_url,
                subject=subject,
                key=key,
                concurrency=options.concurrency,
                progress=partial(progress.advance, bar),
            )
            reports.append(asyncio.run(asked))
    place.close()
    table = Table("", *(str(report.subject) for report in reports))
    for name in (*MARKS, "good"):
        table.add_row(name, *(str(report.figures()[name]) for report in reports))
    table.add_row("no answer", *(str(report.unanswered) for report in reports))
    console.print(table)
    for report in reports if options.out else ():
        docs_benchmark.write(report, options.out / f"{report.subject}-python-docs.json")


def _ask_probes(options: argparse.Namespace) -> None:
    """Ask plain questions that training must not have spoilt."""
    probes = regressions.read(options.probes)
    for subject in map(Subject.parse, options.subject or ["base"]):
        asker = Served(options.base_url, subject, os.environ.get(options.key_env, "none"))
        report = asyncio.run(regressions.ask(probes, asker=asker, subject=subject))
        right = Figure.of(sum(a.score.call_exact for a in report.answers), len(report.answers))
        console.print(f"{subject}: right {right}", highlight=False)
        if options.out:
            write(report, options.out / f"{_file_name(report)}.json")


def _rows(held_out: dataset.Dataset, side: str, options: argparse.Namespace) -> list[Row]:
    """The rows of a side; the sealed one is opened here, and that is kept in its ledger."""
    if side != dataset.SEALED:
        found: list[Row] = getattr(held_out, side)
        return found
    if options.verdict is None:
        raise GateError("the sealed side opens for a candidate that passed: --verdict FILE")
    return sealed.unseal(options.dataset, gate.read(options.verdict))


def _file_name(report: Report) -> str:
    return f"{report.subject}-{report.side}".replace(", ", "-").replace(" ", "-")


def _asked(
    rows: list[Row],
    asker: Asker,
    subject: Subject,
    side: str,
    held_out: dataset.Dataset,
    options: argparse.Namespace,
) -> Report:
    with Progress(console=console, transient=True) as progress:
        bar = progress.add_task(f"{subject}, {side}", total=len(rows))
        return asyncio.run(
            evaluate(
                rows,
                asker=asker,
                subject=subject,
                side=side,
                concurrency=options.concurrency,
                dataset=held_out.fingerprint,
                progress=lambda: progress.advance(bar),
            )
        )


def _in_process(
    rows: list[Row], side: str, held_out: dataset.Dataset, options: argparse.Namespace
) -> Report:
    subject = Subject(options.in_process.name, url="in-process")
    return _asked(rows, of_bundle(options.in_process), subject, side, held_out, options)


def _compare(reports: Sequence[Report]) -> None:
    """Say on how many rows the last report, asked in this process, differs from the served one."""
    *before, inside = reports
    for served in before:
        if served.subject.adapter == inside.subject.adapter and served.side == inside.side:
            apart, of = len(disagreeing(served, inside)), len(inside.answers)
            console.print(f"{inside.side}: served and in-process answers differ on {apart} of {of}")


def _tell_routing(reports: Sequence[Report]) -> None:
    """Whom the proxy chose, and what its choice costs beside each adapter that was pinned."""
    for routed in (report for report in reports if report.subject.is_routed):
        for name, share in routed.answerers.items():
            console.print(f"routed, {routed.side}: answered by {name or '?'} {share}")
        for pinned in reports:
            if pinned.side == routed.side and not pinned.subject.is_routed:
                console.print(_beside(routed, pinned), highlight=False)


def _beside(routed: Report, pinned: Report) -> str:
    found = pair(routed.answers, pinned.answers, lambda answer: answer.score.call_exact)
    return (
        f"{routed.side}: routed less {pinned.subject}: {found.gain:+.0%}, right alone"
        f" {found.only_first} and {found.only_second} of {found.n}, p={found.p_value():.2g}"
    )


def _table(reports: Sequence[Report]) -> Table:
    table = Table("", *(f"{report.subject}, {report.side}" for report in reports))
    for name in reports[0].figures:
        table.add_row(name, *(str(report.figures[name]) for report in reports))
    return table


def _describe(bundle: Path, held_out: dataset.Dataset, reports: Sequence[Report]) -> None:
    manifest = adapter.read(bundle).manifest
    if manifest.dataset_fingerprint != held_out.fingerprint:
        raise TrainerError(f"{bundle} was trained on another dataset; its figures would mislead")
    metrics = {
        f"{report.side}/{name}": figure.share
        for report in reports
        if report.subject == Subject(manifest.id)
        for name, figure in report.figures.items()
        if figure.n
    }
    counts = {side: len(getattr(held_out, side)) for side in SIDES}
    bundles.describe(bundle, metrics, card.card(manifest, counts, reports))


def _calibrate(bundle: Path, held_out: dataset.Dataset, reports: Sequence[Report]) -> None:
    own = [report for report in reports if report.subject == Subject(bundle.name)]
    measured = calibrate(judged(own), "labels", held_out.fingerprint)
    adapter.write_calibration(bundle, measured)
    table = Table("confidence at least", "calls", "wrong", "at most, with 95 %")
    for step in measured.steps:
        table.add_row(f"{step.floor:.3f}", f"{step.served}", f"{step.wrong}", f"{step.upper:.0%}")
    console.print(table)
