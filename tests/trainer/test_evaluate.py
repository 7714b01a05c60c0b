"""Evaluation: every row is asked as it is, and each figure counts the rows that it should."""

from __future__ import annotations

import json
from collections.abc import AsyncIterator

import msgspec
import pytest

pytest.importorskip("openai", reason="needs the dev extra")
pytest.importorskip("scipy", reason="needs the train extra")

from proxy.protocol.openai import FunctionCall
from proxy.sinks.memory import MemorySink
from tests.serving import Engine, call, finish, serving_with, settings
from tests.trainer.endpoint import Server, answering
from tests.trainer.examples import WEATHER, function, row, weather
from trainer import evaluate as evaluation
from trainer.errors import TrainerError
from trainer.evaluate import Report, evaluate
from trainer.figures import Figure, by_category
from trainer.rows import Row
from trainer.served import Served
from trainer.subject import Subject

OSLO = '{"city": "Oslo"}'


@pytest.fixture
async def server() -> AsyncIterator[Server]:
    async with answering() as made:
        yield made


async def asked(server: Server, *rows: Row, who: str = "api-v1") -> Report:
    subject = Subject.parse(who)
    return await evaluate(
        rows, asker=Served(server.base_url, subject), subject=subject, side="seen"
    )


# ---------------------------------------------------------------- intervals


@pytest.mark.parametrize(
    ("hits", "n", "low", "high"),
    [
        (20, 50, 0.276, 0.538),
        (0, 10, 0.0, 0.278),
        (10, 10, 0.722, 1.0),
        (5, 10, 0.237, 0.763),
        (31, 100, 0.228, 0.406),
        (1, 20, 0.009, 0.236),
    ],
)
def test_an_interval_is_wilsons(hits, n, low, high):
    figure = Figure.of(hits, n)

    assert (round(figure.low, 3), round(figure.high, 3)) == (low, high)


def test_a_figure_shows_share_interval_and_count():
    assert str(Figure.of(20, 50)) == " 40% [28%, 54%] n=50"


def test_a_figure_of_nothing_says_nothing():
    assert (str(Figure.of(0, 0)), Figure.of(0, 0).low, Figure.of(0, 0).high) == ("–", 0.0, 1.0)


# ---------------------------------------------------------------- what is asked


async def test_a_row_is_asked_as_it_is(server):
    await asked(server, row(weather(), functions=(WEATHER, function("tides"))))

    (body,) = server.bodies
    assert body["messages"] == [{"role": "user", "content": "Rain in Oslo?"}]
    assert [tool["type"] for tool in body["tools"]] == ["function", "function"]
    assert body["tools"][0]["function"] == {
        "name": "weather",
        "description": "Does weather.",
        "parameters": json.loads(bytes(WEATHER.parameters)),
    }


async def test_answers_are_greedy_and_the_subjects_own(server):
    await asked(server, row(weather()))

    assert server.bodies[0]["temperature"] == 0
    assert server.subjects == {"api-v1"}


async def test_who_must_call_is_asked_only_what_a_call_answers(server):
    await asked(server, row(weather()), row(question="nothing fits"), who="base!")

    (body,) = server.bodies
    assert body["tool_choice"] == "required"
    assert server.subjects == {"base"}


def test_a_sample_needs_calls_and_none_turn_about():
    calls = [row(weather(), question=f"Rain {n}?") for n in range(4)]
    none = [row(question="Sing!")]

    assert evaluation.balanced([*calls, *none], 3) == [calls[0], none[0], calls[1]]


# ---------------------------------------------------------------- what is counted


ASKED = (
    row(weather(), question="right", functions=(WEATHER, function("tides"))),
    row(weather("New York"), question="loosely right"),
    row(weather(), question="other arguments"),
    row(weather(), question="other tool", functions=(WEATHER, function("tides"))),
    row(weather(), question="invalid"),
    row(weather(), question="missed"),
    row(question="nothing fits"),
    row(question="called all the same", functions=(WEATHER, function("tides"))),
)
ANSWERS = {
    "right": [weather()],
    "loosely right": [weather("new york")],
    "other arguments": [weather("Bergen")],
    "other tool": [FunctionCall("tides", "{}")],
    "invalid": [FunctionCall("weather", '{"town": 1}')],
    "called all the same": [weather()],
}
COUNTED = {
    "call exact": (1, 6),
    "call match": (2, 6),
    "tool name": (4, 6),
    "valid JSON": (7, 8),
    "missed calls": (1, 6),
    "false calls": (1, 2),
    "BFCL": (3, 8),
    "exact match": (1, 6),
    "JSON strict": (5, 6),
    "JSON lenient": (5, 6),
    "tool name (structured)": (4, 6),
    "tool name, normal": (4, 6),
    "all arguments": (2, 6),
    "query exact": (5, 6),
    "tool choice": (1, 2),
}


@pytest.mark.parametrize("name", COUNTED)
async def test_a_figure_counts_its_own_rows(server, name):
    server.calls = ANSWERS

    report = await asked(server, *ASKED)

    assert (report.figures[name].hits, report.figures[name].n) == COUNTED[name]


async def test_every_figure_has_a_count(server):
    assert set((await asked(server, *ASKED)).figures) == set(COUNTED)


async def test_an_answer_is_kept_with_its_row(server):
    server.calls = ANSWERS

    report = await asked(server, ASKED[0], ASKED[6])

    assert [a.row for a in report.answers] == [ASKED[0].id, ASKED[6].id]
    assert [a.calls for a in report.answers] == [[("weather", '{"city": "Oslo"}')], []]
    assert [a.text for a in report.answers] == ["", "No."]
    assert [a.offered for a in report.answers] == [2, 1]


async def test_a_refused_request_counts_as_wrong(server):
    server.calls = ANSWERS
    server.refuses = {"refused"}

    report = await asked(server, ASKED[0], row(weather(), question="refused"))

    assert report.refused == 1
    assert (report.figures["call exact"].hits, report.figures["call exact"].n) == (1, 2)


async def test_broken_arguments_are_counted_and_end_nothing(server):
    server.calls = {"torn": [FunctionCall("weather", '{"city": ')], "right": [weather()]}

    report = await asked(server, row(weather(), question="torn"), ASKED[0])

    assert (report.figures["valid JSON"].hits, report.figures["valid JSON"].n) == (1, 2)


async def test_progress_is_told_once_a_row(server):
    told: list[int] = []

    subject = Subject("base")
    await evaluate(
        ASKED,
        asker=Served(server.base_url, subject),
        subject=subject,
        side="seen",
        progress=lambda: told.append(1),
    )

    assert len(told) == len(ASKED)


async def test_a_server_that_is_not_there_is_told():
    with pytest.raises(TrainerError, match=r"127\.0\.0\.1:9/v1 .*is the server running\?"):
        await asked(Server("http://127.0.0.1:9/v1"), *ASKED)


async def test_a_server_that_refuses_everything_is_told(server):
    server.refuses = {row.question for row in ASKED}

    with pytest.raises(TrainerError, match="answered none of 8 requests"):
        await asked(server, *ASKED)


async def test_a_report_is_written_for_machines(server, tmp_path):
    server.calls = ANSWERS
    report = await asked(server, *ASKED)

    evaluation.write(report, tmp_path / "reports" / "api-v1-seen.json")

    written = (tmp_path / "reports" / "api-v1-seen.json").read_bytes()
    assert msgspec.json.decode(written, type=Report) == report


# ---------------------------------------------------------------- who, when, and again


async def test_an_answer_says_who_gave_it_when_and_what_it_took(server):
    (answer,) = (await asked(server, ASKED[0])).answers

    assert (answer.model, answer.prompt_tokens, answer.completion_tokens) == ("m", 1, 1)
    assert answer.at > 1.7e9


async def test_routed_pins_nobody_is_not_recorded_and_says_who_answered(server):
    server.by = {"x-headrace-adapter": "api-v2", "x-headrace-backend": "embedded"}
    local = await asked(server, ASKED[0], who="routed")
    server.by = {"x-headrace-backend": "azure"}
    cloud = await asked(server, ASKED[0], ASKED[6], who="routed")

    assert (server.subjects, server.backends, server.recorded) == ({None}, {None}, {"off"})
    assert local.answerers == {"api-v2": Figure.of(1, 1)}
    assert cloud.answerers == {"azure": Figure.of(2, 2)}


async def test_a_proxy_says_whom_its_cascade_came_to_and_records_nothing():
    broken, right = ([call("weather", given), finish()] for given in ('{"city": 1}', OSLO))
    sink, subject = MemorySink(), Subject.parse("routed")

    async with serving_with(
        settings("first", "second"), Engine("first", broken), Engine("second", right), sink=sink
    ) as url:
        asker = Served(url, subject)
        report = await evaluate([row(weather())], asker=asker, subject=subject, side="seen")

    assert report.answerers == {"second": Figure.of(1, 1)}
    assert report.figures["call exact"].hits == 1
    assert not sink.exchanges


async def test_who_was_pinned_has_no_choice_to_report(server):
    server.by = {"x-headrace-adapter": "api-v1"}

    report = await asked(server, ASKED[0])

    assert (report.answers[0].by, report.answerers) == ("api-v1", {})


async def test_figures_are_split_by_tool_and_category(server):
    server.calls = ANSWERS

    report = await asked(server, *ASKED)

    assert {name: (f.hits, f.n) for name, f in report.tools.items()} == {
        "": (1, 2),
        "weather": (1, 6),
    }
    assert by_category(report.answers) == report.categories
    assert report.means["arguments"] == pytest.approx(2 / 6)


async def test_a_report_is_judged_anew_from_its_answers(server):
    server.calls = ANSWERS
    server.refuses = {"missed"}
    report = await asked(server, *ASKED)
    forgotten = msgspec.structs.replace(report, figures={}, tools={}, means={})

    assert evaluation.rejudged(forgotten, ASKED) == report


async def test_a_report_of_other_rows_is_not_judged(server):
    report = await asked(server, ASKED[0])

    with pytest.raises(TrainerError, match="not in the dataset"):
        evaluation.rejudged(report, ASKED[1:])


async def test_two_reports_disagree_where_the_calls_differ(server):
    server.calls = ANSWERS
    first = await asked(server, *ASKED)
    server.calls = ANSWERS | {
        "right": [FunctionCall("weather", '{ "city":"Oslo" }')],
        "invalid": [],
    }
    second = await asked(server, *ASKED)

    assert evaluation.disagreeing(first, second) == [ASKED[4].id]


# ---------------------------------------------------------------- other subjects


@pytest.mark.parametrize("text", ["api-v1,vote=3", "api-v1,votes=0", "api-v1,votes=x"])
def test_a_subject_that_cannot_be_is_told(text):
    with pytest.raises(TrainerError, match=r"option|votes"):
        Subject.parse(text)


async def test_the_majority_of_the_votes_answers_and_all_are_paid(server):
    server.turns = {"right": [[weather("Rome")], [weather()], [weather()]]}

    report = await asked(server, ASKED[0], who="api-v1,votes=3")

    assert report.answers[0].calls == [("weather", '{"city": "Oslo"}')]
    assert report.answers[0].prompt_tokens == 3
    assert {body["temperature"] for body in server.bodies} == {0.7}


async def test_a_prompt_of_ones_own_stands_first(server, tmp_path):
    (tmp_path / "terse.txt").write_text("Be terse.")

    await asked(server, ASKED[0], who=f"api-v1,prompt={tmp_path}/terse.txt")

    assert server.bodies[0]["messages"][0] == {"role": "system", "content": "Be terse."}


async def test_a_cloud_is_asked_by_its_backend_and_model(server):
    await asked(server, ASKED[0], who="cloud,backend=azure,model=gpt-4o")

    assert server.bodies[0]["model"] == "gpt-4o"
    assert (server.subjects, server.backends) == ({None}, {"azure"})


async def test_a_row_with_several_calls_may_be_answered_by_several(server):
    several = row(weather(), weather("Rome"), question="both")
    server.calls = {"both": [weather("Rome"), weather()]}

    report = await asked(server, several)

    assert server.bodies[0]["parallel_tool_calls"] is True
    assert report.figures["call exact"].hits == 1
