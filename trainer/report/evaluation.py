"""One evaluation as a page: the verdict first, then figures, tools, and the worst errors.

The page is one file without scripts. Beside it lies its twin in JSON with the same figures.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path

import msgspec

from proxy.protocol.evidence.intervals import Interval
from proxy.protocol.page.charts import Mark, intervals
from proxy.protocol.page.frame import page
from trainer.evaluate import Report
from trainer.figures import Answered, Figure, by_tool, figures, percentile
from trainer.gate import Verdict
from trainer.gate_rules import Evidence, answers
from trainer.pairs import pair
from trainer.rows import Row

DRAWN = ("call exact", "call match", "tool name", "valid JSON", "missed calls", "false calls")
_WORST = 12
_LETTERS = 1200
"""Of a text that is shown."""


class Subject(msgspec.Struct, frozen=True, kw_only=True):
    """One column of the report."""

    role: str
    """candidate, champion or cloud."""
    name: str
    models: list[str]
    """Snapshots that answered."""
    figures: dict[str, Figure]
    p50: float
    p95: float
    """Seconds."""


class Gain(msgspec.Struct, frozen=True, kw_only=True):
    """The candidate beside another one, on the rows that both answered."""

    beside: str
    n: int
    only_candidate: int
    only_other: int
    gain: float
    interval: Interval
    p: float


class Tool(msgspec.Struct, frozen=True, kw_only=True):
    """call_exact of one tool, by role."""

    name: str
    shares: dict[str, Figure]


class Mistake(msgspec.Struct, frozen=True, kw_only=True):
    """A row that the candidate got wrong, and what each said."""

    row: str
    fault: str
    asked: str
    right: str
    said: dict[str, str]
    """Role → answer."""


class Version(msgspec.Struct, frozen=True, kw_only=True):
    """An adapter's call_exact, for the learning curve."""

    name: str
    figure: Figure


class Twin(msgspec.Struct, frozen=True, kw_only=True):
    """The whole report, for machines."""

    title: str
    verdict: Verdict
    subjects: list[Subject]
    gains: list[Gain]
    tools: list[Tool]
    mistakes: list[Mistake]
    curve: list[Version]


def report(
    evidence: Evidence,
    verdict: Verdict,
    rows: Mapping[str, Row],
    history: Sequence[Version] = (),
) -> Twin:
    """All that the page shows; `rows` are the dataset's by id, for the requests of mistakes."""
    roles = _roles(evidence)
    return Twin(
        title=f"{evidence.name}: {verdict.decision}",
        verdict=verdict,
        subjects=[_subject(role, evidence, found) for role, found in roles.items()],
        gains=[_gain(role, roles) for role in roles if role != "candidate"],
        tools=_tools(roles),
        mistakes=_mistakes(roles, rows),
        curve=list(history),
    )


def write(twin: Twin, directory: Path) -> Path:
    """`index.html` and `report.json` in a directory; returns the page's path."""
    directory.mkdir(parents=True, exist_ok=True)
    (directory / "report.json").write_bytes(msgspec.json.format(msgspec.json.encode(twin)))
    path = directory / "index.html"
    path.write_text(html(twin), encoding="utf-8")
    return path


def html(twin: Twin) -> str:
    return page(
        "trainer.report",
        "evaluation.html.jinja",
        title=twin.title,
        subtitle=f"{twin.verdict.at} · dataset {twin.verdict.dataset[:23] or 'unnamed'}",
        twin=twin,
        tone=_TONES[twin.verdict.decision],
        charts=[_chart(twin, name) for name in DRAWN if _drawable(twin, name)],
        curve=_curve(twin),
        drawn=DRAWN,
    )


_TONES = {"promote": "good", "refuse": "bad", "hold": "", "not decidable": ""}


# ------------------------------------------------------------------ what is said


def _roles(evidence: Evidence) -> dict[str, list[Answered]]:
    found = {role: answers(reports) for role, reports in _reports(evidence).items()}
    return {role: given for role, given in found.items() if given}


def _reports(evidence: Evidence) -> dict[str, list[Report]]:
    return {
        "candidate": evidence.candidate,
        "champion": evidence.champion,
        "cloud": evidence.cloud,
        "base": evidence.base,
    }


def _subject(role: str, evidence: Evidence, given: list[Answered]) -> Subject:
    return Subject(
        role=role,
        name=str(_reports(evidence)[role][0].subject),
        models=sorted({answer.model for answer in given if answer.model}),
        figures=figures(given),
        p50=percentile(given, 0.5),
        p95=percentile(given, 0.95),
    )


def _gain(role: str, roles: Mapping[str, list[Answered]]) -> Gain:
    pairs = pair(roles["candidate"], roles[role], lambda answer: answer.score.call_exact)
    return Gain(
        beside=role,
        n=pairs.n,
        only_candidate=pairs.only_first,
        only_other=pairs.only_second,
        gain=pairs.gain,
        interval=pairs.interval(),
        p=pairs.p_value(),
    )


def _tools(roles: Mapping[str, list[Answered]]) -> list[Tool]:
    """The tools, those first that the candidate is asked for most."""
    split = {role: by_tool(given) for role, given in roles.items()}
    names = sorted(split["candidate"], key=lambda name: -split["candidate"][name].n)
    return [
        Tool(
            name=name or "nothing to call",
            shares={role: found.get(name, Figure.of(0, 0)) for role, found in split.items()},
        )
        for name in names
    ]


def _mistakes(roles: Mapping[str, list[Answered]], rows: Mapping[str, Row]) -> list[Mistake]:
    """Wrong answers of the candidate; those first that the others got right, then false calls."""
    known = {role: {answer.row: answer for answer in given} for role, given in roles.items()}
    wrong = [answer for answer in roles["candidate"] if not answer.score.call_exact]

    def weight(answer: Answered) -> tuple[int, bool, str]:
        others = [found.get(answer.row) for role, found in known.items() if role != "candidate"]
        right = sum(other is not None and other.score.call_exact for other in others)
        return -right, answer.score.must_call, answer.row

    return [
        _mistake(answer, known, rows.get(answer.row))
        for answer in sorted(wrong, key=weight)[:_WORST]
    ]


def _mistake(
    answer: Answered, known: Mapping[str, Mapping[str, Answered]], row: Row | None
) -> Mistake:
    return Mistake(
        row=answer.row,
        fault=answer.score.fault or "differs",
        asked=_cut(row.question) if row else "the row is not in this dataset",
        right=_cut(_calls([(c.name, c.arguments) for c in row.calls]) or row.text) if row else "",
        said={
            role: _cut(_said(found[answer.row]))
            for role, found in known.items()
            if answer.row in found
        },
    )


def _said(answer: Answered) -> str:
    return _calls(answer.calls) or answer.broken or answer.text or "no answer"


def _calls(calls: Sequence[tuple[str, str]]) -> str:
    return "\n".join(f"{name}({arguments})" for name, arguments in calls)


def _cut(text: str) -> str:
    return text if len(text) <= _LETTERS else f"{text[:_LETTERS]} …"


# ------------------------------------------------------------------ what is drawn


def _drawable(twin: Twin, name: str) -> bool:
    return any(subject.figures[name].n for subject in twin.subjects)


def _chart(twin: Twin, name: str) -> dict[str, object]:
    marks = [
        _mark(f"{subject.role} · {subject.name}", subject.figures[name])
        for subject in twin.subjects
        if subject.figures[name].n
    ]
    return {"name": name, "svg": intervals(marks, unit="share", title=name)}


def _curve(twin: Twin) -> object:
    """call_exact over the versions, oldest first; empty where there is one version or none."""
    if len(twin.curve) < 2:
        return ""
    marks = [_mark(version.name, version.figure) for version in twin.curve]
    return intervals(marks, unit="share", title="call exact over the versions")


def _mark(label: str, figure: Figure) -> Mark:
    return Mark(label, figure.share, figure.low, figure.high)
