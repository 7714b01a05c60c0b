"""Workflows run to their end: what counts as right, what as a recovery, and what pass^k is."""

from __future__ import annotations

import json
from collections.abc import Sequence

import msgspec
import pytest

pytest.importorskip("scipy", reason="needs the train extra")

from proxy.protocol.formats.base import Parsed, call
from proxy.protocol.openai import FunctionCall
from tests.trainer.answers import answered
from tests.trainer.examples import row
from trainer.closed_loop import FAILURE, Ended, figures, next_steps, pass_hat, run, run_all
from trainer.evaluate import Said
from trainer.rows import Row, Workflow
from trainer.simulators import TASKS, Bookings, Calculator, Files, Task, Tickets
from trainer.simulators.base import ToolError
from trainer.simulators.base import call as called

BY_ID = {task.id: task for task in TASKS}
BOOK = BY_ID["bookings-book"]


class Planned:
    """A model that makes its calls one answer after the other, and again when told to try again."""

    place = "here"

    def __init__(self, *turns: Sequence[FunctionCall], stubborn: bool = False) -> None:
        self._turns = list(turns)
        self._stubborn = stubborn
        self.closed = False

    async def ask(self, asked: Row) -> Said | None:
        done = sum(message.role == "assistant" for message in asked.messages)
        failures = sum(FAILURE in (m.text or "") for m in asked.messages if m.role == "tool")
        turn = done - (failures if not self._stubborn else 0)
        calls = self._turns[turn] if turn < len(self._turns) else ()
        parsed = Parsed("" if calls else "Done.", tuple(call(c.name, c.arguments) for c in calls))
        return Said(parsed=parsed, seconds=0.0)

    async def close(self) -> None:
        self.closed = True


def one_by_one(task: Task, **more: bool) -> Planned:
    return Planned(*([call] for call in task.right), **more)


# ---------------------------------------------------------------- one run


@pytest.mark.parametrize("id", BY_ID)
async def test_the_right_calls_are_right(id):
    ended = await run(BY_ID[id], one_by_one(BY_ID[id]))

    assert ended.right
    assert ended.steps == len(BY_ID[id].right)


@pytest.mark.parametrize("id", BY_ID)
async def test_without_its_last_call_a_task_is_not_done(id):
    ended = await run(BY_ID[id], Planned(*([call] for call in BY_ID[id].right[:-1])))

    assert not ended.right


async def test_more_reading_than_needed_is_allowed():
    look = FunctionCall("list_bookings", '{"name": "Noether"}')

    assert (await run(BOOK, Planned([look], *([call] for call in BOOK.right)))).right


async def test_several_calls_may_come_at_once():
    assert (await run(BOOK, Planned(BOOK.right))).right


async def test_the_right_end_without_what_had_to_be_learnt_is_not_right():
    ended = await run(BOOK, Planned(BOOK.right[1:]))

    assert (ended.state, ended.responses, ended.right) == (True, False, False)


async def test_a_change_too_many_is_not_right():
    more = FunctionCall("book_room", '{"room": "Ada", "day": "2026-03-02", "name": "Hilbert"}')

    ended = await run(BOOK, Planned(*([call] for call in BOOK.right), [more]))

    assert (ended.state, ended.responses) == (False, True)


async def test_an_answer_without_any_call_is_not_right():
    assert (await run(BOOK, Planned())).end == "no_call"


async def test_calls_without_end_are_ended():
    look = [FunctionCall("list_bookings", '{"name": "Noether"}')]

    ended = await run(BOOK, Planned(*[look] * 40))

    assert (ended.end, ended.steps, len(ended.calls)) == ("too_long", 20, 21)


@pytest.mark.parametrize(
    "given",
    [
        FunctionCall("fly", "{}"),
        FunctionCall("book_room", "{"),
        FunctionCall("book_room", '{"room": 7}'),
        FunctionCall("book_room", '{"room": "Ada", "day": "soon", "name": "x"}'),
        FunctionCall("book_room", '{"room": "Euler", "day": "2026-03-02", "name": "x"}'),
    ],
)
async def test_a_call_that_cannot_be_is_told_and_changes_nothing(given):
    ended = await run(BOOK, Planned([given], *([call] for call in BOOK.right)))

    assert ended.right


# ---------------------------------------------------------------- recovery


async def test_who_tries_again_after_a_failure_recovers():
    ended = await run(BOOK, one_by_one(BOOK), failing=True)

    assert (ended.right, ended.failed, ended.steps) == (True, True, 3)


async def test_who_goes_on_as_if_nothing_was_does_not():
    assert not (await run(BOOK, one_by_one(BOOK, stubborn=True), failing=True)).right


# ---------------------------------------------------------------- figures


async def test_all_tasks_are_run_and_the_asker_is_closed():
    asker = one_by_one(BOOK)

    ended = await run_all([BOOK], asker, times=3)
    found = figures(ended, [BOOK])

    assert asker.closed
    assert (found.right.hits, found.right.n, found.recovery.hits, found.recovery.n) == (3, 3, 1, 1)
    assert (found.pass_1, found.pass_3, found.precision, found.recall) == (1.0, 1.0, 1.0, 1.0)
    assert found.step_ratio == 1.0


def ended(task: str, *rights: bool) -> list[Ended]:
    return [Ended(task=task, state=right, responses=True, calls=[], steps=1) for right in rights]


@pytest.mark.parametrize(("k", "share"), [(1, (2 / 4 + 1) / 2), (2, (1 / 6 + 1) / 2), (3, 0.5)])
def test_pass_k_is_the_chance_that_k_runs_are_all_right(k, share):
    runs = [*ended("a", True, True, False, False), *ended("b", *[True] * 4)]

    assert pass_hat(runs, k) == pytest.approx(share)


def test_pass_k_of_fewer_runs_is_none():
    assert pass_hat(ended("a", True, True), 3) is None


def test_steps_from_logs_are_counted_one_by_one_and_by_workflow():
    steps = [
        msgspec.structs.replace(row(question=f"{w}{n}"), cep=Workflow(id=w, step=n))
        for w in "ab"
        for n in range(3)
    ]
    rights = [True, True, True, True, False, True]
    answers = [answered(one.id, right=r) for one, r in zip(steps, rights, strict=True)]
    alone = row(question="alone")

    each, whole = next_steps([*answers, answered(alone.id)], [*steps, alone])

    assert ((each.hits, each.n), (whole.hits, whole.n)) == ((5, 6), (1, 2))


# ---------------------------------------------------------------- the services


@pytest.mark.parametrize(
    ("world", "name", "arguments"),
    [
        (Files({}), "read_file", '{"name": "none"}'),
        (Files({"a": "", "b": ""}), "move_file", '{"name": "a", "to": "b"}'),
        (Files({}), "write_file", json.dumps({"name": "a", "text": "x" * 200_000})),
        (Tickets(), "close_ticket", '{"number": 1}'),
        (Bookings({"Ada": 4}), "cancel_booking", '{"room": "Ada", "day": "2026-01-01"}'),
        (Calculator(), "divide", '{"a": 1, "b": 0}'),
        (Calculator(), "multiply", '{"a": 1e14, "b": 1e14}'),
        (Calculator(), "add", '{"a": 1}'),
        (Calculator(), "add", "[" * 100_000),
    ],
)
def test_what_cannot_be_done_is_refused_without_a_change(world, name, arguments):
    before = world.state()

    with pytest.raises(ToolError):
        called(world, name, arguments)

    assert world.state() == before


def test_worlds_share_nothing():
    first, second = BOOK.start(), BOOK.start()

    called(first, BOOK.right[1].name, BOOK.right[1].arguments)

    assert first.state() != second.state()
