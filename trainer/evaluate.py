"""Evaluating what is served: a dataset's held-out rows, asked, judged, counted, and kept.

The items go through the proxy (or any other OpenAI endpoint), so that templates, quantisation,
constraints and parsing are part of what is measured. Every answer is kept, with who gave it and
when, so that a report can be judged anew (`rejudged`) after a rule has changed.
"""

from __future__ import annotations

import asyncio
import itertools
from collections.abc import Callable, Iterable, Sequence
from pathlib import Path
from typing import Protocol

import msgspec

from proxy.protocol.formats.base import Parsed, call, dumps
from proxy.protocol.formats.structured import with_query
from trainer.calibration import Judged
from trainer.errors import TrainerError, cause_of
from trainer.figures import (
    Answered,
    Figure,
    by_answerer,
    by_category,
    by_tool,
    category,
    figures,
    means,
)
from trainer.rows import Row
from trainer.scorers.structured import Five, five
from trainer.scorers.toolcall import refused, score
from trainer.subject import Subject


class Said(msgspec.Struct, frozen=True, kw_only=True):
    """What came back for one row."""

    parsed: Parsed
    raw: str | None = None
    """The text of the model itself, where it is known; None: what a server made of it."""
    seconds: float
    confidence: float | None = None
    model: str = ""
    by: str = ""
    at: float = 0.0
    prompt_tokens: int = 0
    completion_tokens: int = 0


class Asker(Protocol):
    """A way to ask a subject; one for each evaluation."""

    place: str
    """Where it asks, for people."""
    trouble: str
    """What the last request without an answer got in its place; empty where there was none."""

    async def ask(self, row: Row) -> Said | None:
        """The answer; None for an error in its place."""

    async def close(self) -> None: ...


class Report(msgspec.Struct, frozen=True, kw_only=True):
    """One model on one side of a dataset."""

    subject: Subject
    side: str
    figures: dict[str, Figure]
    answers: list[Answered]
    refused: int
    """Requests that got an error instead of an answer; they count as wrong."""
    means: dict[str, float] = {}
    """Figures that are means of shares."""
    tools: dict[str, Figure] = {}
    """call_exact by the right tool; `` where nothing must be called."""
    categories: dict[str, Figure] = {}
    answerers: dict[str, Figure] = {}
    """Share of the answers that each adapter or backend gave, of a `routed` subject."""
    dataset: str = ""
    """Fingerprint of the dataset that the rows are of."""


async def evaluate(
    rows: Sequence[Row],
    *,
    asker: Asker,
    subject: Subject,
    side: str,
    concurrency: int = 4,
    dataset: str = "",
    progress: Callable[[], None] = lambda: None,
) -> Report:
    """Ask every row that `subject` is for, `concurrency` at a time.

    Raises TrainerError when not one is answered.
    """
    gate = asyncio.Semaphore(concurrency)

    async def one(row: Row) -> Said | None:
        async with gate:
            said = await asker.ask(row)
            progress()
            return said

    asked = [row for row in rows if row.calls or not subject.must_call]
    try:
        said = await asyncio.gather(*map(one, asked))
    finally:
        await asker.close()
    if not any(said):
        raise TrainerError(
            f"{asker.place} answered none of {len(asked)} requests"
            f" ({asker.trouble or 'no error'}); is the server running?"
        )
    answers = [_answered(row, one) for row, one in zip(asked, said, strict=True)]
    return _report(answers, subject, side, said.count(None), dataset)


def rejudged(report: Report, rows: Iterable[Row]) -> Report:
    """The same answers judged by today's rules; raises TrainerError for a row that is not there."""
    known = {row.id: row for row in rows}
    try:
        answers = [_again(answer, known[answer.row]) for answer in report.answers]
    except KeyError as error:
        raise TrainerError(
            f"row {error.args[0]} is not in the dataset; the report is of another one"
        ) from error
    return _report(answers, report.subject, report.side, report.refused, report.dataset)


def recounted(report: Report, answers: list[Answered]) -> Report:
    """The report with other answers in place of its own, and the figures that they come to."""
    return _report(answers, report.subject, report.side, report.refused, report.dataset)


def _report(
    answers: list[Answered], subject: Subject, side: str, refused: int, dataset: str
) -> Report:
    return Report(
        subject=subject,
        side=side,
        figures=figures(answers),
        answers=answers,
        refused=refused,
        means=means(answers),
        tools=by_tool(answers),
        categories=by_category(answers),
        answerers=by_answerer(answers) if subject.is_routed else {},
        dataset=dataset,
    )


# ------------------------------------------------------------------ one answer


def _answered(row: Row, said: Said | None) -> Answered:
    """An answer judged; an error in its place is wrong, whatever was asked."""
    parsed = said.parsed if said else Parsed("")
    return Answered(
        row=row.id,
        text=parsed.text,
        calls=[(c.function.name, c.function.arguments) for c in parsed.calls],
        broken=parsed.broken,
        score=score(row, parsed) if said else refused(row),
        five=_five(row, parsed, said.raw if said else ""),
        offered=len(row.functions),
        seconds=said.seconds if said else 0,
        confidence=said.confidence if said else None,
        model=said.model if said else "",
        by=said.by if said else "",
        at=said.at if said else 0.0,
        prompt_tokens=said.prompt_tokens if said else 0,
        completion_tokens=said.completion_tokens if said else 0,
        tool=row.calls[0].name if row.calls else "",
        category=category(row),
        group=row.group,
    )


def _again(answer: Answered, row: Row) -> Answered:
    if answer.score.fault == "no_answer":
        return answer
    calls = tuple(call(name, arguments) for name, arguments in answer.calls)
    parsed = Parsed(answer.text, calls, answer.broken)
    return msgspec.structs.replace(
        answer, score=score(row, parsed), five=_five(row, parsed, answer.broken or None)
    )


def _five(row: Row, parsed: Parsed, raw: str | None) -> Five | None:
    """The figures of structured generation. The query is filled in by code, as it is served."""
    if len(row.calls) != 1:
        return None
    if len(parsed.calls) == 1 and not parsed.broken:
        return five(row, with_query(parsed.calls[0].function, row.question))
    return five(row, raw if raw is not None else _text(parsed))


def _text(parsed: Parsed) -> str:
    """What a client got that is not one call."""
    calls = [c.function for c in parsed.calls]
    return parsed.text or dumps([[one.name, one.arguments] for one in calls])


# ------------------------------------------------------------------ rows and reports


def balanced(rows: Sequence[Row], most: int) -> list[Row]:
    """At most `most` rows: of those that need a call and those that need none, turn about."""
    kinds = [[row for row in rows if row.calls], [row for row in rows if not row.calls]]
    turns = [row for pair in itertools.zip_longest(*kinds) for row in pair if row is not None]
    return turns[:most]


def judged(reports: Iterable[Report]) -> list[Judged]:
    """The calls in these reports whose confidence is known, and whether they were right."""
    return [
        Judged(answer.confidence, answer.score.must_call and answer.score.call_match)
        for report in reports
        for answer in report.answers
        if answer.calls and answer.confidence is not None
    ]


def disagreeing(first: Report, second: Report) -> list[str]:
    """Rows that two reports answer differently: served and in-process answers should not."""
    theirs = {answer.row: answer for answer in second.answers}
    return [
        answer.row
        for answer in first.answers
        if answer.row in theirs and _said(answer) != _said(theirs[answer.row])
    ]


def _said(answer: Answered) -> tuple[object, ...]:
    """What counts as the same answer: the calls by value; what is said instead counts not."""
    return tuple((name, _value(arguments)) for name, arguments in answer.calls)


def _value(arguments: str) -> str:
    try:
        return dumps(msgspec.json.decode(arguments))
    except (ValueError, RecursionError):
        return arguments


def write(report: Report, path: Path) -> None:
    """The report for machines, with every answer."""
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(msgspec.json.format(msgspec.json.encode(report)))


def read(path: Path) -> Report:
    """A report that was written; raises TrainerError for what is none."""
    try:
        return msgspec.json.decode(path.read_bytes(), type=Report)
    except (OSError, msgspec.MsgspecError, UnicodeDecodeError) as error:
        raise TrainerError(
            f"{path}: {cause_of(error)}; `headrace-trainer evaluate --out` writes reports"
        ) from error
