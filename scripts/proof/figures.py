"""What the proof found, as the client saw it, as the gate measured it, and as the record has it."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from pathlib import Path
from statistics import quantiles

import msgspec

from proxy.protocol.agreement import compare
from proxy.protocol.exchange import Answer
from proxy.protocol.openai import ToolCall
from scripts.proof.client import Asked
from trainer.evaluate import read
from trainer.figures import Figure
from trainer.flywheel.state import Run
from trainer.recipe.sources import ExchangesSettings
from trainer.sources.base import Skips
from trainer.sources.exchanges import open_shelf


class Times(msgspec.Struct, frozen=True, kw_only=True):
    """Seconds until the client had its whole answer."""

    n: int
    p50: float
    p95: float

    @classmethod
    def of(cls, seconds: Sequence[float]) -> Times:
        if len(seconds) < 2:
            return cls(n=len(seconds), p50=float("nan"), p95=float("nan"))
        cuts = quantiles(seconds, n=20, method="inclusive")
        return cls(n=len(seconds), p50=cuts[9], p95=cuts[18])


class Phase(msgspec.Struct, frozen=True, kw_only=True):
    """One domain's requests of some time."""

    domain: str
    name: str
    requests: int
    errors: int
    local: Figure
    """Requests that an adapter answered."""
    agreed: Figure
    """Of those answered locally, the ones that call what the cloud calls, or call nothing, too."""
    false_calls: Figure
    """Calls, of the requests answered locally in which the cloud calls nothing."""
    fell_back: Figure
    """Requests in which an adapter was asked, and the cloud answered in the end."""
    times: Times
    """Of those answered locally, or of all where none was."""
    cloud_usd: float
    """What the cloud was paid for a thousand requests, shadows aside."""


class Measured(msgspec.Struct, frozen=True, kw_only=True):
    """One subject on the held-out rows of a run."""

    domain: str
    subject: str
    call_exact: Figure
    false_calls: Figure
    valid: Figure


class Verdict(msgspec.Struct, frozen=True, kw_only=True):
    """What a run came to."""

    domain: str
    adapter: str
    outcome: str
    reason: str
    seconds: float
    rows: int
    """Trained on."""


class Proof(msgspec.Struct, frozen=True, kw_only=True):
    """All of it."""

    version: int = 1
    form: str
    at: str
    machine: str
    versions: dict[str, str]
    seconds: dict[str, float]
    """Part of the proof → how long it took."""
    phases: list[Phase]
    measured: list[Measured]
    verdicts: list[Verdict]
    damaged: Verdict
    cloud_answers: int

    @property
    def errors(self) -> int:
        """That a client got, in all."""
        return sum(phase.errors for phase in self.phases)


def phase(name: str, asked: Sequence[Asked], cloud_usd: float) -> Phase:
    """What a client saw of one domain."""
    local = [one for one in asked if one.is_local]
    silent = [one for one in local if one.expected is None]
    fell = [one for one in asked if one.fallback not in ("", "no_champion")]
    return Phase(
        domain=asked[0].domain,
        name=name,
        requests=len(asked),
        errors=sum(bool(one.error) for one in asked),
        local=Figure.of(len(local), len(asked)),
        agreed=Figure.of(sum(map(agrees, local)), len(local)),
        false_calls=Figure.of(sum(bool(one.got.tool_calls) for one in silent), len(silent)),
        fell_back=Figure.of(len(fell), len(local) + len(fell)),
        times=Times.of([one.seconds for one in local or asked]),
        cloud_usd=cloud_usd,
    )


def agrees(one: Asked) -> bool:
    """Whether an answer is the cloud's: the same call, or words where it has words."""
    calls = [] if one.expected is None else [ToolCall(id="", function=one.expected)]
    reference = Answer(tool_calls=calls, text="" if calls else "words")
    return compare(one.got, reference).agrees


def measured(domain: str, path: Path) -> Measured:
    """The figures of a report."""
    report = read(path)
    return Measured(
        domain=domain,
        subject=str(report.subject),
        call_exact=report.figures["call exact"],
        false_calls=report.figures["false calls"],
        valid=report.figures["valid JSON"],
    )


def verdict(run: Run) -> Verdict:
    """What a run of the flywheel came to."""
    manifest = run.manifest
    return Verdict(
        domain=manifest.domain,
        adapter=manifest.adapter,
        outcome=manifest.outcome,
        reason=manifest.reason,
        seconds=(manifest.finished_at or manifest.started_at) - manifest.started_at,
        rows=int(manifest.step("dataset").figures.get("train", 0)),
    )


def paid(record: Path, domain: str, since: float, until: float) -> float:
    """US dollars that clouds were paid for a thousand requests of a domain, shadows aside."""
    shelf = open_shelf(ExchangesSettings(directory=str(record)), Skips())
    costs = [
        one.cost_usd or 0.0
        for one in shelf.exchanges()
        if one.domain == domain and since <= one.started_at < until
    ]
    return _thousand(costs)


def _thousand(costs: Iterable[float]) -> float:
    found = list(costs)
    return 1000 * sum(found) / len(found) if found else 0.0
