"""Evaluating what is served: a dataset's held-out rows, asked over HTTP, judged, counted.

The items go through the proxy (or any other OpenAI endpoint), so that templates, quantisation,
constraints and parsing are part of what is measured.
"""

from __future__ import annotations

import asyncio
import itertools
import time
from collections.abc import Callable, Iterable, Sequence
from pathlib import Path
from typing import Any

import msgspec
from openai import APIError, AsyncOpenAI
from openai.types.chat import ChatCompletion
from scipy.stats import binomtest

from proxy.protocol.formats.base import Parsed, call
from trainer.calibration import Judged
from trainer.errors import TrainerError
from trainer.rows import Row
from trainer.scorers.toolcall import Score, score

SLICES: dict[str, tuple[str, Callable[[Score], bool]]] = {
    "call exact": ("call_exact", lambda s: s.must_call),
    "call match": ("call_match", lambda s: s.must_call),
    "tool name": ("tool_name", lambda s: s.must_call),
    "valid JSON": ("json_valid", lambda s: True),
    "missed calls": ("missed", lambda s: s.must_call),
    "false calls": ("called", lambda s: not s.must_call),
}
"""Figure → (field of Score that counts, which scores it is counted over)."""


class Subject(msgspec.Struct, frozen=True):
    """Who is asked: an adapter, or the base model, and whether it is made to call a tool."""

    adapter: str
    """Id of an adapter, or `base`."""
    must_call: bool = False
    """Ask with `tool_choice: required`, and only what has to be answered by a call: the fair
    comparison for a base model that would rather talk."""

    @classmethod
    def parse(cls, text: str) -> Subject:
        """`api-v1`, `base`, or with the choice taken away `base!`."""
        return cls(text.removesuffix("!"), text.endswith("!"))

    def __str__(self) -> str:
        return f"{self.adapter}, call required" if self.must_call else self.adapter


class Figure(msgspec.Struct, frozen=True):
    """A share: `hits` of `n`, with its 95 % Wilson interval."""

    hits: int
    n: int
    low: float
    high: float

    @classmethod
    def of(cls, hits: int, n: int) -> Figure:
        if n == 0:
            return cls(0, 0, 0.0, 1.0)
        interval = binomtest(hits, n).proportion_ci(method="wilson")
        return cls(hits, n, float(interval.low), float(interval.high))

    @property
    def share(self) -> float:
        return self.hits / self.n if self.n else float("nan")

    def __str__(self) -> str:
        if not self.n:
            return "–"
        return f"{self.share:4.0%} [{self.low:.0%}, {self.high:.0%}] n={self.n}"


class Answered(msgspec.Struct, frozen=True, kw_only=True):
    """One row, its answer and what that is worth."""

    row: str
    text: str
    calls: list[tuple[str, str]]
    """(tool, arguments) of each call."""
    score: Score
    offered: int
    """Tools that the row offers."""
    seconds: float
    confidence: float | None = None
    """That the engine had in its calls, where it told."""


class Report(msgspec.Struct, frozen=True, kw_only=True):
    """One model on one side of a dataset."""

    subject: Subject
    side: str
    figures: dict[str, Figure]
    answers: list[Answered]
    refused: int
    """Requests that got an error instead of an answer; they count as wrong."""


async def evaluate(
    rows: Sequence[Row],
    *,
    base_url: str,
    subject: Subject,
    side: str,
    concurrency: int = 4,
    progress: Callable[[], None] = lambda: None,
) -> Report:
    """Ask every row that `subject` is for, `concurrency` at a time.

    Raises TrainerError when nothing answers at `base_url`.
    """
    client = AsyncOpenAI(base_url=base_url, api_key="none", max_retries=0, timeout=120)
    gate = asyncio.Semaphore(concurrency)

    async def one(row: Row) -> Answered | None:
        async with gate:
            answered = await _ask(client, row, subject)
            progress()
            return answered

    asked = [row for row in rows if row.calls or not subject.must_call]
    async with client:
        answers = await asyncio.gather(*map(one, asked))
    if not any(answers):
        raise TrainerError(
            f"{base_url} answered none of {len(asked)} requests; is the server running?"
        )
    judged = [a or _refused(row) for row, a in zip(asked, answers, strict=True)]
    return Report(
        subject=subject,
        side=side,
        figures=_figures(judged),
        answers=judged,
        refused=answers.count(None),
    )


async def _ask(client: AsyncOpenAI, row: Row, subject: Subject) -> Answered | None:
    began = time.monotonic()
    try:
        response = await client.chat.completions.with_raw_response.create(
            model="headrace",
            messages=_wire(row.messages),
            tools=[{"type": "function", "function": f} for f in _wire(row.functions)],
            tool_choice="required" if subject.must_call else "auto",
            temperature=0,
            max_tokens=256,
            extra_headers={"x-headrace-adapter": subject.adapter},
            # A row has one right call.
            parallel_tool_calls=False,
        )
    except APIError:
        return None
    parsed = _parsed(response.parse())
    told = response.headers.get("x-headrace-confidence")
    return Answered(
        row=row.id,
        text=parsed.text,
        calls=[(c.function.name, c.function.arguments) for c in parsed.calls],
        score=score(row, parsed),
        offered=len(row.functions),
        seconds=time.monotonic() - began,
        confidence=None if told is None else float(told),
    )


def _refused(row: Row) -> Answered:
    """What a row is worth that got an error instead of an answer: wrong, whatever it asked."""
    wrong = Score(
        must_call=bool(row.calls),
        called=not row.calls,
        json_valid=False,
        tool_name=False,
        call_match=False,
        call_exact=False,
    )
    return Answered(
        row=row.id, text="", calls=[], score=wrong, offered=len(row.functions), seconds=0
    )


def _wire(of: object) -> Any:
    """As a client's JSON would hold it; raw parts, such as schemas, are decoded on the way."""
    return msgspec.json.decode(msgspec.json.encode(of))


def _parsed(completion: ChatCompletion) -> Parsed:
    message = completion.choices[0].message
    calls = [c.function for c in message.tool_calls or () if c.type == "function"]
    return Parsed(message.content or "", tuple(call(c.name, c.arguments) for c in calls))


def _figures(answers: Sequence[Answered]) -> dict[str, Figure]:
    figures = {name: _figure(answers, name) for name in SLICES}
    several = [answer for answer in answers if answer.offered > 1]
    return figures | {"tool choice": _figure(several, "tool name")}


def _figure(answers: Sequence[Answered], name: str) -> Figure:
    field, counted = SLICES[name]
    scores = [answer.score for answer in answers if counted(answer.score)]
    return Figure.of(sum(_holds(s, field) for s in scores), len(scores))


def _holds(score: Score, field: str) -> bool:
    return not score.called if field == "missed" else bool(getattr(score, field))


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


def write(report: Report, path: Path) -> None:
    """The report for machines, with every answer."""
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(msgspec.json.format(msgspec.json.encode(report)))
