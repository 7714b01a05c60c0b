"""Workflows run to their end: the model calls, a simulated service answers, until it calls no more.

A run is right when the service is left in the state that the right calls leave (state), and when
all that those calls were told was told to the model too, whatever else it asked (responses). Where
nothing is called at all, or more than MOST_STEPS answers do not end it, it is wrong.

    pass^k     share of tasks that are right in all of k runs: a service is used more than once
    recovery   share of the runs right in which the first call of a real tool failed once
    precision, recall   of the calls beside the right ones; steps as a multiple of theirs

Source of the checks: Berkeley Function Calling Leaderboard v3, multi-turn, re-implemented from its
description; of pass^k: Yao et al., "tau-bench" (2024), here over n runs of which k are drawn.
"""

from __future__ import annotations

import asyncio
from collections import Counter
from collections.abc import Callable, Iterable, Sequence
from math import comb
from statistics import fmean

import msgspec

from proxy.protocol.agreement import stance
from proxy.protocol.openai import FunctionCall, Message, PastCall
from trainer.evaluate import Asker
from trainer.figures import Answered, Figure
from trainer.rows import Row
from trainer.simulators import Task
from trainer.simulators.base import Simulator, ToolError, call
from trainer.subject import Subject

MOST_STEPS = 20
"""Answers with calls; more of them are a loop (BFCL's number)."""
FAILURE = "the service is busy; try again"
"""What an injected failure says."""


class Ended(msgspec.Struct, frozen=True, kw_only=True):
    """One run."""

    task: str
    state: bool
    responses: bool
    calls: list[tuple[str, str]]
    steps: int
    """Answers of the model that called."""
    failed: bool = False
    """Whether a failure was injected."""
    end: str = ""
    """Why it ended, where not by an answer without calls: `no_answer`, `no_call`, `too_long`."""

    @property
    def right(self) -> bool:
        return self.state and self.responses and not self.end


class Figures(msgspec.Struct, frozen=True, kw_only=True):
    """What a number of runs comes to."""

    right: Figure
    recovery: Figure
    pass_1: float
    pass_3: float | None
    """None where a task was run less than three times."""
    precision: float
    recall: float
    step_ratio: float | None
    """Steps of the right runs beside those of the right calls; None where none is right."""


class Report(msgspec.Struct, frozen=True, kw_only=True):
    """One subject's runs, and what they come to."""

    subject: Subject
    figures: Figures
    runs: list[Ended]


async def run(task: Task, asker: Asker, *, failing: bool = False) -> Ended:
    """One run in a fresh world. `failing`: the first call of a real tool fails once."""
    world, told, made = task.start(), Counter[str](), list[FunctionCall]()
    messages = [Message(role="user", content=task.goal)]
    failures = 1 if failing else 0
    for step in range(MOST_STEPS + 1):
        said = await asker.ask(_row(task, world, messages))
        if said is None:
            return _ended(task, world, told, made, step, failing, "no_answer")
        if not said.parsed.calls:
            end = "" if made else "no_call"
            return _ended(task, world, told, made, step, failing, end)
        past = [PastCall(id=one.id, function=one.function) for one in said.parsed.calls]
        messages.append(Message(role="assistant", tool_calls=past))
        for one in said.parsed.calls:
            answer, failures = _answer(world, one.function, failures)
            told[answer] += 1
            made.append(one.function)
            messages.append(Message(role="tool", tool_call_id=one.id, content=answer))
    return _ended(task, world, told, made, MOST_STEPS, failing, "too_long")


async def run_all(
    tasks: Sequence[Task],
    asker: Asker,
    *,
    times: int = 3,
    progress: Callable[[], None] = lambda: None,
) -> list[Ended]:
    """Every task so many times, and once more with an injected failure."""
    ended = []
    try:
        for task in tasks:
            for number in range(times + 1):
                ended.append(await run(task, asker, failing=number == times))
                progress()
    finally:
        await asyncio.shield(asker.close())
    return ended


def figures(ended: Sequence[Ended], tasks: Iterable[Task]) -> Figures:
    """The figures of some runs; those with an injected failure count for recovery alone."""
    right_calls = {task.id: list(task.right) for task in tasks}
    plain = [one for one in ended if not one.failed]
    failed = [one for one in ended if one.failed]
    overlaps = [_overlap(one, right_calls[one.task]) for one in plain]
    ratios = [one.steps / len(right_calls[one.task]) for one in plain if one.right]
    return Figures(
        right=Figure.of(sum(one.right for one in plain), len(plain)),
        recovery=Figure.of(sum(one.right for one in failed), len(failed)),
        pass_1=pass_hat(plain, 1) or 0.0,
        pass_3=pass_hat(plain, 3),
        precision=fmean(precision for precision, _ in overlaps) if overlaps else 0.0,
        recall=fmean(recall for _, recall in overlaps) if overlaps else 0.0,
        step_ratio=fmean(ratios) if ratios else None,
    )


def pass_hat(ended: Sequence[Ended], k: int) -> float | None:
    """Mean over the tasks of the chance that k of their runs, drawn at random, are all right."""
    by_task: dict[str, list[bool]] = {}
    for one in ended:
        by_task.setdefault(one.task, []).append(one.right)
    if not by_task or any(len(runs) < k for runs in by_task.values()):
        return None
    return fmean(comb(sum(runs), k) / comb(len(runs), k) for runs in by_task.values())


def next_steps(answers: Iterable[Answered], rows: Iterable[Row]) -> tuple[Figure, Figure]:
    """Teacher-forced, from logs: steps that are right, and workflows of which every step is.

    Each step is asked after the logged ones before it, so that a mistake does not compound: the
    second figure is what comes of it. Rows that belong to no workflow are left out.
    """
    workflow = {row.id: row.cep.id for row in rows if row.cep is not None}
    steps: dict[str, list[bool]] = {}
    for answer in answers:
        if answer.row in workflow:
            steps.setdefault(workflow[answer.row], []).append(answer.score.call_exact)
    rights = [right for one in steps.values() for right in one]
    return Figure.of(sum(rights), len(rights)), Figure.of(sum(map(all, steps.values())), len(steps))


# ------------------------------------------------------------------ one run


def _row(task: Task, world: Simulator, messages: Sequence[Message]) -> Row:
    """What the model is asked next. The right calls say that several may be made at once."""
    return Row(
        messages=list(messages),
        functions=[tool.function for tool in world.tools().values()],
        calls=list(task.right),
        source=f"simulator:{task.id}",
        license="Apache-2.0",
        group=task.id,
    )


def _answer(world: Simulator, given: FunctionCall, failures: int) -> tuple[str, int]:
    """(what the service says, failures left to inject). One that is injected changes nothing."""
    try:
        if failures and given.name in world.tools():
            return msgspec.json.encode({"error": FAILURE}).decode(), failures - 1
        return call(world, given.name, given.arguments), failures
    except ToolError as error:
        return msgspec.json.encode({"error": str(error)}).decode(), failures


def _ended(
    task: Task,
    world: Simulator,
    told: Counter[str],
    made: Sequence[FunctionCall],
    steps: int,
    failed: bool,
    end: str,
) -> Ended:
    other = task.start()
    needed = Counter(call(other, one.name, one.arguments) for one in task.right)
    return Ended(
        task=task.id,
        state=world.state() == other.state(),
        responses=needed <= told,
        calls=[(one.name, one.arguments) for one in made],
        steps=steps,
        failed=failed,
        end=end,
    )


def _overlap(one: Ended, right: Sequence[FunctionCall]) -> tuple[float, float]:
    """Precision and recall of the calls that were made, by name and arguments."""
    given = Counter(stance([FunctionCall(*made)]) for made in one.calls)
    expected = Counter(stance([call]) for call in right)
    both = (given & expected).total()
    return both / given.total() if given else 0.0, both / expected.total()
