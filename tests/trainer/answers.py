"""Answers and reports of known worth, as an evaluation would have kept them."""

from __future__ import annotations

from collections.abc import Sequence

from trainer.evaluate import Report
from trainer.figures import Answered, by_category, by_tool, figures, means
from trainer.scorers.toolcall import Score
from trainer.subject import Subject


def answered(
    row: str,
    *,
    right: bool = True,
    must_call: bool = True,
    valid: bool = True,
    seconds: float = 1.0,
    tool: str = "weather",
    category: str = "live",
    group: str = "",
    model: str = "",
) -> Answered:
    """One answer: the right call or a wrong one; where nothing must be called, none or one."""
    called = must_call or not right
    return Answered(
        row=row,
        text="" if called else "No.",
        calls=[("weather", '{"city": "Oslo"}')] if called else [],
        score=Score(
            must_call=must_call,
            called=called,
            json_valid=valid,
            tool_name=right,
            call_match=right,
            call_exact=right,
            bfcl=right,
            arguments=float(right),
        ),
        offered=2,
        seconds=seconds,
        model=model,
        at=1.79e9,
        prompt_tokens=400,
        completion_tokens=30,
        tool=tool if must_call else "",
        category=category,
        group=group or row,
    )


def report(name: str, answers: Sequence[Answered], side: str = "seen") -> Report:
    return Report(
        subject=Subject(name),
        side=side,
        figures=figures(answers),
        answers=list(answers),
        refused=0,
        means=means(answers),
        tools=by_tool(answers),
        categories=by_category(answers),
        dataset="sha256:1",
    )


def calls(rights: Sequence[bool], **more: object) -> list[Answered]:
    """Rows `c0`, `c1` … that need a call, right or wrong as told."""
    return [answered(f"c{n}", right=right, **more) for n, right in enumerate(rights)]


def none(rights: Sequence[bool], **more: object) -> list[Answered]:
    """Rows `n0`, `n1` … where nothing must be called."""
    return [
        answered(f"n{n}", right=right, must_call=False, **more) for n, right in enumerate(rights)
    ]
