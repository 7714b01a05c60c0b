"""A committee: who is asked, whose answer wins, and what a second run costs."""

from __future__ import annotations

import asyncio
import itertools
import json
import threading
from collections.abc import Iterator
from pathlib import Path

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

pytest.importorskip("openai", reason="needs the train extra")

from proxy.protocol.exchange import Answer
from proxy.protocol.openai import ToolCall
from tests.scripted import KEPT, ScriptedCloud, answer, completion, error, reachable
from tests.trainer.examples import row, weather
from trainer.__main__ import main
from trainer.errors import LabellingError
from trainer.labelling import Cache, Committee, Labeller, Sample, is_in_doubt, relabelled
from trainer.rows import Label, Row
from trainer.rows import read as read_rows
from trainer.rows import write as write_rows

DISPUTED = msgspec.structs.replace(row(weather("Rome")), label=Label(kind="log", disputed=True))


@pytest.fixture
def teacher() -> Iterator[ScriptedCloud]:
    """A teacher in a thread of its own, as the labeller has its own event loop."""
    cloud, ready, done = ScriptedCloud(), threading.Event(), asyncio.Event()
    loops: list[asyncio.AbstractEventLoop] = []

    async def serve() -> None:
        loops.append(asyncio.get_running_loop())
        async with reachable(cloud):
            ready.set()
            await done.wait()

    thread = threading.Thread(target=lambda: asyncio.run(serve()))
    thread.start()
    ready.wait()
    yield cloud
    loops[0].call_soon_threadsafe(done.set)
    thread.join()


def calling(city: str, name: str = "weather") -> bytes:
    function = {"name": name, "arguments": json.dumps({"city": city})}
    message = {"role": "assistant", "content": None}
    calls = [{"id": "call_1", "type": "function", "function": function}]
    return answer(completion(message | {"tool_calls": calls}, "tool_calls"), KEPT)


def saying(text: str) -> bytes:
    return answer(completion({"role": "assistant", "content": text}), KEPT)


def labelled(
    teacher: ScriptedCloud, directory: Path, *rows: Row, **committee: object
) -> tuple[list[Row], Labeller]:
    given = {"samples": 3, "concurrency": 1} | committee
    asked = Committee(base_url=teacher.base_url, model="gpt-4o", **given)
    labeller = Labeller(asked, Cache(directory / "samples.jsonl"), "secret")
    return list(labeller.label(rows, lambda: None)), labeller


# ---------------------------------------------------------------- who is asked


@pytest.mark.parametrize(
    ("label", "asked"),
    [
        (Label(kind="log"), False),
        (Label(kind="log", disputed=True), True),
        (Label(kind="log", student=True), True),
        (Label(kind="log", student=True, tool_outcome="ok", approved=True), False),
        (Label(kind="human", disputed=True), False),
    ],
)
def test_only_rows_in_doubt_are_asked(label, asked):
    assert is_in_doubt(msgspec.structs.replace(DISPUTED, label=label)) is asked


def test_rows_that_nobody_doubts_stay_and_cost_nothing(teacher, tmp_path):
    teacher.plays(calling("Oslo"))
    sure = row(weather("Bergen"))

    made, labeller = labelled(teacher, tmp_path, sure, DISPUTED)

    assert made[0] == sure
    assert (len(teacher.requests), labeller.told.relabelled) == (3, 1)


def test_the_teacher_sees_what_the_model_is_shown(teacher, tmp_path):
    teacher.plays(calling("Oslo"))

    labelled(teacher, tmp_path, DISPUTED, samples=1)

    (request,) = teacher.requests
    assert request.json["messages"] == [{"role": "user", "content": "Rain in Oslo?"}]
    assert request.json["tools"][0]["function"]["name"] == "weather"
    assert request.headers["authorization"] == "Bearer secret"


# ---------------------------------------------------------------- whose answer wins


def test_the_answer_of_most_samples_is_the_label_with_their_share(teacher, tmp_path):
    for script in (calling("Oslo"), calling("Rome"), calling("Oslo")):
        teacher.plays(script)

    ((made,), labeller) = labelled(teacher, tmp_path, DISPUTED)

    assert [call.arguments for call in made.calls] == ['{"city": "Oslo"}']
    assert made.label.kind == "relabel"
    assert made.label.by == "gpt-4o-2024-08-06"
    assert made.label.agreement == pytest.approx(2 / 3)
    assert labeller.told.changed == 1


def sample(city: str = "", text: str = "") -> Sample:
    calls = [ToolCall("c", weather(city))] if city else []
    return Sample(key="", answer=Answer(text=text, tool_calls=calls), model="m")


def test_texts_are_one_answer_that_calls_nothing():
    made = relabelled(DISPUTED, [sample(text="No."), sample("Oslo"), sample(text="I cannot.")])

    assert (made.calls, made.text, made.label.agreement) == ([], "No.", pytest.approx(2 / 3))


def test_a_sample_that_breaks_the_schema_has_no_vote_and_is_no_agreement():
    number = Answer(
        tool_calls=[ToolCall("c", msgspec.structs.replace(weather(), arguments='{"city": 1}'))]
    )
    wrong = Sample(key="", answer=number, model="m")

    made = relabelled(DISPUTED, [wrong, sample("Oslo"), wrong])

    assert made.label.agreement == pytest.approx(1 / 3)
    assert relabelled(DISPUTED, [wrong, wrong]) is None


def test_what_the_tool_said_is_kept_with_the_answer_it_was_said_of():
    known = Label(kind="log", student=True, tool_outcome="ok", approved=True)
    asked = msgspec.structs.replace(DISPUTED, label=known)

    same, other = relabelled(asked, [sample("Rome")]), relabelled(asked, [sample("Oslo")])

    assert (same.label.tool_outcome, same.label.approved, same.label.student) == ("ok", True, False)
    assert (other.label.tool_outcome, other.label.approved) == (None, None)


@given(st.lists(st.sampled_from(["Oslo", "Rome", "Bergen"]), min_size=1, max_size=9))
def test_the_share_is_the_winners_own(cities):
    made = relabelled(DISPUTED, [sample(city) for city in cities])

    (won,) = [json.loads(call.arguments)["city"] for call in made.calls]
    assert cities.count(won) == max(map(cities.count, cities))
    assert made.label.agreement == cities.count(won) / len(cities)


# ---------------------------------------------------------------- what it costs


def test_a_second_run_asks_nothing_twice(teacher, tmp_path):
    teacher.plays(calling("Oslo"))
    first, _ = labelled(teacher, tmp_path, DISPUTED)
    with (tmp_path / "samples.jsonl").open("ab") as file:
        file.write(b'\n{"key": "cut off')

    again, labeller = labelled(teacher, tmp_path, DISPUTED, samples=4)

    assert (labeller.told.cached, labeller.told.asked) == (3, 1)
    assert again == first
    assert Cache(tmp_path / "samples.jsonl").get("none") is None
    assert labelled(teacher, tmp_path, DISPUTED, samples=4)[1].told.asked == 0


def test_beyond_the_budget_rows_stay_as_they_were(teacher, tmp_path):
    teacher.plays(calling("Oslo"))
    other = msgspec.structs.replace(DISPUTED, text="", messages=DISPUTED.messages * 2)

    made, labeller = labelled(teacher, tmp_path, DISPUTED, other, budget_tokens=15)

    assert [one.label.kind for one in made] == ["relabel", "log"]
    assert (labeller.told.asked, labeller.told.tokens, labeller.told.undecided) == (3, 15, 1)


def test_a_sample_that_fails_leaves_its_row_undecided(teacher, tmp_path):
    for script in (calling("Oslo"), error(400, "no", None), calling("Oslo")):
        teacher.plays(script)

    made, labeller = labelled(teacher, tmp_path, DISPUTED)

    assert made == [DISPUTED]
    assert (labeller.told.failed, labeller.told.undecided) == (1, 1)


def test_a_refused_key_is_told_with_the_remedy(teacher, tmp_path):
    teacher.plays(error(401, "bad key", None))

    with pytest.raises(BaseException, match="--key-env") as told:
        labelled(teacher, tmp_path, DISPUTED)
    assert told.type is LabellingError


def test_an_endpoint_that_answers_nothing_is_told(tmp_path):
    nowhere = ScriptedCloud(base_url="http://127.0.0.1:9/v1")

    with pytest.raises(LabellingError, match=r"http://127\.0\.0\.1:9/v1 answered none of 1"):
        labelled(nowhere, tmp_path, DISPUTED, samples=1)


# ---------------------------------------------------------------- the command


def test_the_command_labels_a_file_of_rows(teacher, tmp_path, capsys):
    teacher.plays(calling("Oslo"))
    write_rows(tmp_path / "rows.jsonl", itertools.chain([DISPUTED], [row(weather())]))
    out = tmp_path / "labelled.jsonl"
    given = ("--out", str(out), "--base-url", teacher.base_url, "--model", "gpt-4o")

    assert main(["label", str(tmp_path / "rows.jsonl"), *given, "--samples", "3"]) == 0

    assert [one.label.kind for one in read_rows(out)] == ["relabel", "import"]
    assert "3 asked" in " ".join(capsys.readouterr().out.split())
