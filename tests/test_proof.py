"""The proof's own parts: its traffic, its cloud, its client, and what it counts.

The proof itself is `make proof-small`.
"""

from __future__ import annotations

import itertools
import random
from pathlib import Path

import msgspec
import pytest
import yaml

pytest.importorskip("rich", reason="needs the train extra")

from rich.console import Console

from proxy.protocol.exchange import Answer
from proxy.protocol.openai import Function, FunctionCall, ToolCall
from scripts.proof import page
from scripts.proof.client import Asked, Client
from scripts.proof.cloud import Cloud
from scripts.proof.figures import Measured, Proof, Verdict, agrees, phase
from scripts.proof.form import FULL, SMALL
from scripts.proof.hotels import Hotels
from scripts.proof.story import shuffle
from scripts.proof.tickets import Tickets
from scripts.proof.traffic import Conversation, Talk
from tests.scripted import reachable
from tests.trainer.examples import row
from trainer import dataset
from trainer.dataset import Dataset
from trainer.figures import Figure
from trainer.recipe import Recipe
from trainer.scorers.toolcall import is_valid

TALKS = [Tickets, Hotels]
PRIORITY = FunctionCall("create_ticket", '{"title":"dock beeps","priority":"high"}')


def conversations(talk: type[Talk], count: int, seed: int = 1) -> list[Conversation]:
    return list(itertools.islice(talk(random.Random(seed)).conversations(), count))


def functions(conversation: Conversation) -> list[Function]:
    offered = msgspec.json.encode([tool.offered["function"] for tool in conversation.tools])
    return msgspec.json.decode(offered, type=list[Function])


def calls(conversation: Conversation) -> list[FunctionCall]:
    return [turn.call for turn in conversation.turns if turn.call is not None]


def asked(expected: FunctionCall | None, got: Answer, **fields: object) -> Asked:
    plain = Asked(domain="tickets", said="", expected=expected, got=got, seconds=0.5)
    return msgspec.structs.replace(plain, **fields)


# ---------------------------------------------------------------- traffic


@pytest.mark.parametrize("talk", TALKS)
def test_every_reference_is_a_call_that_the_offered_tools_allow(talk):
    for conversation in conversations(talk, 400):
        offered = functions(conversation)

        assert len(offered) == 3
        assert all(is_valid(offered, call) for call in calls(conversation))
        assert all(turn.call or turn.text for turn in conversation.turns)


@pytest.mark.parametrize("talk", TALKS)
def test_names_and_numbers_that_are_asked_later_were_never_said_before(talk):
    made = conversations(talk, 600)
    drawn = [
        str(value)
        for conversation in made
        for call in calls(conversation)
        for name, value in msgspec.json.decode(call.arguments).items()
        if name in ("title", "person", "ticket", "hotel", "guest", "city", "booking")
    ]

    assert len(drawn) > 500
    assert len(set(drawn)) == len(drawn)


@pytest.mark.parametrize("talk", TALKS)
def test_every_kind_of_conversation_occurs_and_some_fit_no_tool(talk):
    made = conversations(talk, 400)

    silent = sum(not calls(conversation) for conversation in made)
    assert 0.15 < silent / len(made) < 0.35
    assert {len(conversation.turns) for conversation in made} == {1, 2}
    assert {call.name for c in made for call in calls(c)} == {tool.name for tool in talk.tools}


def test_the_same_seed_gives_the_same_traffic():
    assert conversations(Hotels, 50) == conversations(Hotels, 50)
    assert conversations(Hotels, 50) != conversations(Hotels, 50, seed=2)


# ---------------------------------------------------------------- cloud and client


async def test_the_cloud_answers_from_the_references_streamed_or_not():
    made = conversations(Tickets, 40)
    cloud = Cloud()
    cloud.learn(made)

    async with reachable(cloud):
        client = Client(cloud.base_url, "tickets")
        found = await client.hold(made)
        await client.close()

    assert len(found) >= 40
    assert {one.error for one in found} == {""}
    assert all(agrees(one) for one in found)
    assert (cloud.strange, cloud.answered) == (0, len(found))


async def test_conversations_that_are_held_one_after_the_other_are_the_same_each_time():
    found = [await _held(conversations(Tickets, 40), at_once=1) for _ in range(2)]

    assert [(one.said, one.got) for one in found[0]] == [(one.said, one.got) for one in found[1]]
    assert sum(bool(one.got.tool_calls) for one in found[0]) > 20


async def _held(made: list[Conversation], at_once: int) -> list[Asked]:
    cloud = Cloud()
    cloud.learn(made)
    async with reachable(cloud):
        client = Client(cloud.base_url, "tickets")
        found = await client.hold(made, at_once)
        await client.close()
    return found


async def test_a_request_without_a_reference_is_an_error_and_is_counted():
    cloud = Cloud()

    async with reachable(cloud):
        client = Client(cloud.base_url, "tickets")
        found = await client.hold(conversations(Tickets, 1))
        await client.close()

    assert found[0].error == "InternalServerError"
    assert cloud.strange == len(found)


# ---------------------------------------------------------------- what is counted


@pytest.mark.parametrize(
    ("got", "expected", "right"),
    [
        (Answer(tool_calls=[ToolCall("1", PRIORITY)]), PRIORITY, True),
        (Answer(text="No."), None, True),
        (Answer(text="No."), PRIORITY, False),
        (Answer(tool_calls=[ToolCall("1", PRIORITY)]), None, False),
        (Answer(), None, False),
    ],
)
def test_answers_agree_where_they_call_the_same_or_both_use_words(got, expected, right):
    assert agrees(asked(expected, got)) is right


def test_a_phase_counts_who_answered_who_agreed_and_who_was_rescued():
    right, wrong = Answer(tool_calls=[ToolCall("1", PRIORITY)]), Answer(text="No.")
    found = phase(
        "after",
        [
            asked(PRIORITY, right, adapter="tickets-v1"),
            asked(PRIORITY, wrong, adapter="tickets-v1"),
            asked(None, right, adapter="tickets-v1"),
            asked(PRIORITY, right, fallback="invalid"),
            asked(PRIORITY, right, fallback="no_champion"),
            asked(PRIORITY, wrong, error="APITimeoutError"),
        ],
        cloud_usd=0.1,
    )

    assert (found.requests, found.errors) == (6, 1)
    assert (found.local.hits, found.local.n) == (3, 6)
    assert (found.agreed.hits, found.agreed.n) == (1, 3)
    assert (found.false_calls.hits, found.false_calls.n) == (1, 1)
    assert (found.fell_back.hits, found.fell_back.n) == (1, 4)


@pytest.mark.parametrize("form", [FULL, SMALL])
def test_the_recipes_of_both_forms_are_recipes(form):
    recipe = msgspec.convert(yaml.safe_load(form.recipe("tickets")), Recipe)

    assert recipe.training.max_steps == form.steps
    assert recipe.gate.margin == form.margin


# ---------------------------------------------------------------- what is told


def verdict(adapter: str, outcome: str) -> Verdict:
    return Verdict(
        domain="tickets", adapter=adapter, outcome=outcome, reason="So.", seconds=90, rows=300
    )


@pytest.fixture
def proof() -> Proof:
    right = Answer(tool_calls=[ToolCall("1", PRIORITY)])
    before, after = asked(PRIORITY, right), asked(PRIORITY, right, adapter="tickets-v1")
    half = Figure.of(5, 10)
    return Proof(
        form="small",
        at="2026-11-22",
        machine="2 cores",
        versions={"torch": "2.13"},
        seconds={"first run": 90.0},
        phases=[phase("before", [before] * 3, 2.5), phase("after", [after] * 3, 0.0)],
        measured=[
            Measured(
                domain="tickets", subject="base", call_exact=half, false_calls=half, valid=half
            )
        ],
        verdicts=[verdict("tickets-v1", "promoted")],
        damaged=verdict("tickets-v2", "refuse"),
        cloud_answers=3,
    )


def test_terminal_and_page_tell_the_same(proof: Proof):
    console = Console(width=200, record=True)
    page.show(proof, console)
    told, written = console.export_text(), page.markdown(proof, SMALL)

    for fact in ("100% [44%, 100%] n=3", "0% [0%, 56%] n=3", "50% [24%, 76%] n=10", "$2.50"):
        assert fact in told
        assert fact in written
    assert "| tickets | tickets-v2 | refuse | 300 | 1.5 min | So. |" in written
    assert "6 requests of clients, 0 errors; the cloud answered 3 times." in written
    assert "25 points" in " ".join(written.split())


def test_errors_of_all_phases_are_counted(proof: Proof):
    failed = phase("later", [asked(PRIORITY, Answer(), error="APIError")] * 2, 0.0)

    assert msgspec.structs.replace(proof, phases=[*proof.phases, failed]).errors == 2


def test_a_damaged_dataset_has_valid_labels_for_other_questions(tmp_path: Path):
    made = Dataset(
        train=[
            row(FunctionCall("weather", f'{{"city":"{n}"}}'), question=f"{n}") for n in range(20)
        ],
        validation=[row(question="v")],
        seen=[row(question="s")],
        unseen=[],
        dropped={},
    )
    dataset.write(made, tmp_path / "made")

    assert shuffle(tmp_path / "made", tmp_path / "damaged") == 20

    found = dataset.read(tmp_path / "damaged")
    assert sorted(one.question for one in found.train) == sorted(o.question for o in made.train)
    assert [one.calls for one in found.train] == [one.calls for one in made.train]
    assert [one.question for one in found.train] != [one.question for one in made.train]
    assert found.seen == made.seen
