"""What a run does: each step makes its own directory from those before it.

rows ─snapshot→ dataset → preflight → train → register ─bundle→ evaluate ─reports→ gate ─verdict→
sealed → report → promote

A step may be done again at any time, and then does the same: what its directory holds of an earlier
try is thrown away, but for a training's checkpoints and the reports of who was asked already. It
raises TrainerError where it cannot be done, Skipped where there is nothing to do, and Waiting where
others have to do something first.
"""

from __future__ import annotations

import math
import os
import shutil
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path

import msgspec

from proxy.protocol import adapter, atomic
from trainer import choose, dataset, gate, pipeline, rows, sealed, sources
from trainer import preflight as checks
from trainer.choose import Choice, Option
from trainer.curate.build import build as curate
from trainer.errors import FlywheelError
from trainer.evaluate import Report
from trainer.figures import Figure
from trainer.flywheel import references, tools
from trainer.flywheel.asking import Answers, Asked, Role
from trainer.flywheel.events import Events
from trainer.flywheel.references import Reference
from trainer.flywheel.settings import Domain
from trainer.flywheel.state import Figures, Run, StepName
from trainer.gate import Verdict
from trainer.gate_rules import Evidence
from trainer.parity import parity
from trainer.pipeline import Reserved
from trainer.promotion.evidence import Record
from trainer.promotion.promote import Promotion
from trainer.promotion.proxies import Proxies
from trainer.recipe import Recipe
from trainer.recipe.sources import ExchangesSettings
from trainer.registry.taint import learnt_from
from trainer.report import evaluation
from trainer.rows import Row
from trainer.sources.base import Skips
from trainer.sources.exchanges import ExchangesSource

LOWEST = "candidate at least"
"""Figure of the step `evaluate`: the lower end of the interval of the candidate's call exact."""


class Skipped(Exception):
    """There is nothing to do in this step; says why."""


class Waiting(Exception):
    """The step goes on when time or traffic has passed; says for what."""


@dataclass(frozen=True)
class Work:
    """What a step may know."""

    domain: Domain
    run: Run
    events: Events

    @property
    def recipe(self) -> Recipe:
        """As it was when the run began."""
        return self.run.manifest.recipe

    @property
    def id(self) -> str:
        """Of the adapter that the run makes."""
        return self.run.manifest.adapter

    def place(self, name: str) -> Path:
        return self.run.directory / name

    def fresh(self, name: str) -> Path:
        """A step's directory with nothing in it."""
        shutil.rmtree(self.place(name), ignore_errors=True)
        self.place(name).mkdir()
        return self.place(name)

    def watch(self, step: str, done: int, total: int | None) -> None:
        self.events.progress(step, done, total)


# ------------------------------------------------------------------ rows to a bundle


def take_rows(work: Work) -> Figures:
    """What was said up to the run's begin, and what the clouds answered: later traffic changes
    nothing in this run, however often it is taken up."""
    directory, skips = work.fresh("rows"), Skips()
    until = work.run.manifest.until
    read = sources.rows(work.recipe.sources, skips)
    taken = rows.write(
        directory / "rows.jsonl", (row for row in read if row.at is None or row.at <= until)
    )
    recorded = references.write(directory / "cloud.jsonl", _recorded(work))
    tools.write(directory / "tools.json", rows.read(directory / "rows.jsonl"))
    skipped = (skips.counts + skips.left_out).total()
    return {"rows": taken, "left_out": skipped, "cloud_answers": recorded}


def _recorded(work: Work) -> Iterator[Reference]:
    for source in work.recipe.sources:
        if isinstance(source, ExchangesSettings):
            for one in ExchangesSource(source, Skips()).heard():
                if one.cloud is not None:
                    yield references.reference(one.exchange, one.cloud)


def build_dataset(work: Work) -> Figures:
    """The dataset of those rows, without what was erased since."""
    directory = work.fresh("dataset")
    made = curate(
        rows.read(work.place("rows") / "rows.jsonl"),
        work.recipe,
        directory,
        erased=pipeline.erased(work.recipe),
        watch=work.watch,
    )
    return {**made.rows, "dropped": sum(made.dropped.values()), "fingerprint": made.fingerprint}


def preflight(work: Work) -> Figures:
    """The checks of a training; raises PreflightError that says all faults at once."""
    directory = work.fresh("preflight")
    _require_held_out(work)
    found = pipeline.preflight(work.recipe, work.place("dataset"), directory, Skips())
    atomic.write(directory / "checks.json", msgspec.json.format(msgspec.json.encode(found)))
    checks.require(found)
    return {"checks": len(found)}


def _require_held_out(work: Work) -> None:
    counts = dataset.manifest(work.place("dataset")).rows
    sides = work.domain.settings.evaluation.sides
    if not any(counts.get(side) for side in sides):
        raise FlywheelError(
            f"no row is held out on the sides {', '.join(sides)}: nothing could be compared; raise"
            " the recipe's `split.seen`, or wait for more traffic"
        )


def train(work: Work) -> Figures:
    """A bundle under the reserved id; a training that was stopped goes on at its checkpoint."""
    training, bundles = work.place("training"), work.place("candidate")
    if not (bundles / work.id).exists():
        training.mkdir(exist_ok=True)
        pipeline.train(
            work.recipe,
            pipeline.engine(work.recipe),
            training,
            bundles,
            Skips(),
            work.place("dataset"),
            Reserved(work.id, work.run.manifest.created_at, work.run.manifest.id),
        )
    return {"weights": adapter.read(bundles / work.id).manifest.weights_sha256}


def register(work: Work) -> Figures:
    """The bundle where servers find it, and a copy where it is asked; it serves nobody yet."""
    adapters, registry = work.domain.adapters, work.domain.registry
    # What a try that was killed has left: the id is this run's, and the domain's lock held.
    for staged in adapters.glob(f".{work.id}.*"):
        shutil.rmtree(staged, ignore_errors=True)
    registry.put(work.place("candidate") / work.id)
    registry.get(work.id, adapters)
    return {"bundle": f"{registry}/{work.id}"}


# ------------------------------------------------------------------ a bundle to a verdict


def evaluate(work: Work) -> Figures:
    """Candidate, champion, base and the clouds' recorded answers, on the same held-out rows."""
    held_out, champion = dataset.read(work.place("dataset")), work.run.manifest.champion
    for id in filter(None, (champion, work.run.manifest.general)):
        work.domain.registry.get(id, work.domain.adapters)
    sides = work.domain.settings.evaluation.sides
    chosen: dict[str, list[Row]] = {side: getattr(held_out, side) for side in sides}
    found = _answers(work, "evaluation").ask(chosen, held_out.fingerprint)
    return _shares(found)


def decide(work: Work) -> Figures:
    """The gate's verdict on the open sides, about the best of the options."""
    work.place("verdict").mkdir(exist_ok=True)
    told = _choose(work) if work.run.manifest.general else {}
    verdict = gate.decide(_evidence(work, "evaluation"), work.recipe.gate)
    _keep(work, verdict)
    return {"decision": verdict.decision, "sentence": verdict.sentence, **told}


def _choose(work: Work) -> dict[str, str]:
    choice = choose.choose(_options(work, "evaluation"), work.recipe.gate)
    atomic.write(_choice_of(work), msgspec.json.format(msgspec.json.encode(choice)) + b"\n")
    return {"choice": choice.sentence} | ({"routes": choice.routes} if choice.routes else {})


def _options(work: Work, step: str) -> list[Option]:
    """Whom the gate may choose from, the simplest first."""
    found, general = _answers(work, step).kept(), work.run.manifest.general
    alone = Option(found["candidate"], (work.id,))
    if not general:
        return [alone]
    other = Option(found["general"], (general,))
    return [alone, other, choose.in_turn(alone, other)]


def _chosen(work: Work) -> Choice:
    """Who was chosen; the run's own adapter where there was no choice."""
    if not work.run.manifest.general:
        return Choice(chosen=work.id, asks=(work.id,), sentence="", comparisons=[], routes="")
    return msgspec.json.decode(_choice_of(work).read_bytes(), type=Choice)


def _choice_of(work: Work) -> Path:
    return work.place("verdict") / "choice.json"


def unseal(work: Work) -> Figures:
    """The sealed rows, for a candidate that passed the open sides: the last word."""
    said = dataset.manifest(work.place("dataset"))
    verdict = gate.read(verdict_of(work.run))
    if not (said.sealed and work.recipe.gate.sealed):
        raise Skipped("the dataset has no sealed rows" if not said.sealed else "the recipe says so")
    if verdict.decision != "promote" and not verdict.sealed:
        raise Skipped(f"it did not pass the open sides: {verdict.decision}")
    found = _answers(work, "sealed").ask({dataset.SEALED: _opened(work)}, verdict.dataset)
    final = gate.decide(_evidence(work, "sealed", sealed=True), work.recipe.gate)
    _keep(work, final)
    return _shares(found) | {"decision": final.decision, "sentence": final.sentence}


def _opened(work: Work) -> list[Row]:
    """The sealed rows. A look that was killed before it came to a verdict goes on."""
    directory = work.place("dataset")
    name = _chosen(work).chosen
    if any(opening.candidate == name for opening in dataset.openings(directory)):
        return dataset.unsealed(directory, name)
    return sealed.unseal(directory, gate.read(work.place("verdict") / "open.json"))


def report(work: Work) -> Figures:
    """The page for people."""
    verdict = gate.read(verdict_of(work.run))
    evidence = _evidence(work, "sealed" if verdict.sealed else "evaluation", verdict.sealed)
    directory = work.fresh("report")
    twin = evaluation.report(evidence, verdict, {row.id: row for row in _held_out(work)})
    return {"page": str(evaluation.write(twin, directory))}


def promote(work: Work) -> Figures:
    """The candidate comes to serve the domain, where the verdict says so: as far as the evidence
    takes it now. Raises Waiting while it is on its way."""
    verdict = gate.read(verdict_of(work.run))
    if verdict.decision != "promote":
        raise Skipped(verdict.sentence)
    id, settings = _chosen(work).asks[0], work.domain.settings
    _require_same_champion(work, id)
    if settings.promotion is None:
        why = f"run {work.run.manifest.id}, at once"
        work.domain.registry.appoint(id, why, work.domain.name)
        return {"word": "promoted", "reason": why}
    records = [one for one in work.domain.recipe.sources if isinstance(one, ExchangesSettings)]
    outcome = Promotion(
        work.domain.registry,
        work.domain.name,
        id,
        settings.promotion.allowing(verdict.may_differ),
        Record(records),
        run=work.run.manifest.id,
        proxies=Proxies(settings.proxies, os.environ.get(settings.admin_key_env, "")),
    ).advance()
    if outcome.word == "waiting":
        raise Waiting(outcome.reason)
    return {"word": outcome.word, "reason": outcome.reason}


def _require_same_champion(work: Work, id: str) -> None:
    """The verdict is about the champion of then; another one by now was never compared."""
    alias = work.domain.alias
    is_begun = alias.candidate is not None and alias.candidate.adapter == id
    if is_begun or alias.champion == id:
        return
    if (alias.champion or "") != work.run.manifest.champion:
        raise FlywheelError(
            f"{alias.champion} became the champion while {id} was compared with"
            f" {work.run.manifest.champion or 'none'}; run with `--force-step evaluate`"
        )


# ------------------------------------------------------------------ in common


def verdict_of(run: Run) -> Path:
    """The file that holds a run's verdict, the last that was given."""
    return run.directory / "verdict" / "verdict.json"


def _keep(work: Work, verdict: Verdict) -> None:
    """The verdict of the open sides is kept beside the last one."""
    encoded = msgspec.json.format(msgspec.json.encode(verdict)) + b"\n"
    if not verdict.sealed:
        atomic.write(work.place("verdict") / "open.json", encoded)
    atomic.write(verdict_of(work.run), encoded)


def _answers(work: Work, step: str) -> Answers:
    settings = work.domain.settings
    asked = Asked(
        adapters=work.domain.adapters,
        candidate=work.id,
        champion=work.run.manifest.champion,
        general=work.run.manifest.general,
        references=work.place("rows") / "cloud.jsonl" if settings.reference == "cloud" else None,
        recipe=work.recipe,
        settings=settings.evaluation,
    )
    return Answers(work.place(step), asked, work.events)


def _evidence(work: Work, step: str, sealed: bool = False) -> Evidence:
    found, choice = _answers(work, step).kept(), _chosen(work)
    (chosen,) = (one for one in _options(work, step) if one.name == choice.chosen)
    return Evidence(
        candidate=chosen.reports,
        champion=found.get("champion", []),
        cloud=found.get("cloud", []),
        base=found.get("base", []),
        parity=parity(
            adapter.read(work.domain.adapters / choice.asks[0]),
            _held_out(work),
            work.recipe.base_model,
        ),
        sealed=sealed,
        must_go=_must_go(work),
    )


def _must_go(work: Work) -> bool:
    """Whether the champion learnt from what was erased."""
    champion = work.run.manifest.champion
    gone = pipeline.erased(work.recipe) if champion else frozenset()
    return bool(gone and gone & learnt_from(work.domain.registry, champion))


def _held_out(work: Work) -> list[Row]:
    held_out = dataset.read(work.place("dataset"))
    return [*held_out.seen, *held_out.unseen]


def _shares(found: Mapping[Role, list[Report]]) -> dict[str, float | str]:
    """Shares of the calls that are exactly right, over all sides; the candidate's with the lower
    end of its interval."""
    figures = {role: _right(reports) for role, reports in found.items()}
    shares = {f"{role} call exact": _rounded(figure.share) for role, figure in figures.items()}
    low = _rounded(figures["candidate"].low)
    return {**shares, LOWEST: low, "items": figures["candidate"].n}


def _right(reports: list[Report]) -> Figure:
    figures = [report.figures["call exact"] for report in reports]
    return Figure.of(sum(one.hits for one in figures), sum(one.n for one in figures))


def _rounded(share: float) -> float:
    """JSON has no NaN, which is the share of nothing."""
    return 0.0 if math.isnan(share) else round(share, 4)


DO: dict[StepName, Callable[[Work], Figures]] = {
    "rows": take_rows,
    "dataset": build_dataset,
    "preflight": preflight,
    "train": train,
    "register": register,
    "evaluate": evaluate,
    "gate": decide,
    "sealed": unseal,
    "report": report,
    "promote": promote,
}
