"""The benchmark's questions, asked of a server, judged by execution, and compared in pairs."""

from __future__ import annotations

import json
from collections.abc import AsyncIterator, Iterator
from dataclasses import dataclass, field

import pytest
from starlette.applications import Starlette
from starlette.requests import Request
from starlette.responses import JSONResponse, Response
from starlette.routing import Route

pytest.importorskip("openai", reason="needs the dev extra")
pytest.importorskip("scipy", reason="needs the train extra")

from tests.serving import listening
from trainer import docs_benchmark
from trainer.benchmarks import python_docs
from trainer.docs_benchmark import DocsReport, ask, compare
from trainer.errors import SandboxError, TrainerError
from trainer.figures import Figure
from trainer.sandbox import Limits, Sandbox
from trainer.subject import Subject

FIRST, SECOND, THIRD = (q for q in python_docs() if q.id in ("basic-01", "basic-04", "advanced-02"))
QUESTIONS = (FIRST, SECOND, THIRD)
STUB = "A signature says nothing at all here.\n\n```python\ndef inverted(mapping): ...\n```"


@dataclass
class Server:
    """An OpenAI endpoint with an answer for each question; none is an error."""

    answers: dict[str, str]
    base_url: str = ""
    bodies: list[dict] = field(default_factory=list)
    headers: list[str | None] = field(default_factory=list)

    async def answer(self, request: Request) -> Response:
        body = json.loads(await request.body())
        self.bodies.append(body)
        self.headers.append(request.headers.get("x-headrace-adapter"))
        said = self.answers.get(body["messages"][-1]["content"])
        if said is None:
            return JSONResponse({"error": {"message": "too slow"}}, status_code=504)
        choice = {"index": 0, "message": {"role": "assistant", "content": said}}
        about = {"id": "x", "object": "chat.completion", "created": 1, "model": "m-1"}
        return JSONResponse(about | {"choices": [choice | {"finish_reason": "stop"}]})


@pytest.fixture
async def server() -> AsyncIterator[Server]:
    made = Server({FIRST.question: FIRST.reference, SECOND.question: STUB})
    app = Starlette(routes=[Route("/v1/chat/completions", made.answer, methods=["POST"])])
    async with listening(app) as base_url:
        made.base_url = base_url
        yield made


@pytest.fixture(scope="module")
def place() -> Iterator[Sandbox]:
    sandbox = Sandbox(Limits(seconds=20))
    try:
        sandbox.run("")
    except SandboxError as error:
        pytest.skip(str(error))
    yield sandbox
    sandbox.close()


async def asked(server: Server, place: Sandbox, who: str = "docs-v1") -> DocsReport:
    subject = Subject.parse(who)
    return await ask(QUESTIONS, place, base_url=server.base_url, subject=subject)


async def test_answers_are_greedy_the_subjects_own_and_judged_by_what_they_do(server, place):
    report = await asked(server, place)

    assert {(body["temperature"], body["model"]) for body in server.bodies} == {(0, "headrace")}
    assert server.headers == ["docs-v1"] * 3
    assert [answer.marks.correct for answer in report.answers] == [True, False, False]
    assert [answer.marks.runs for answer in report.answers] == [True, True, False]
    assert [answer.model for answer in report.answers] == ["m-1", "m-1", ""]


async def test_figures_are_counted_over_all_or_one_category(server, place):
    report = await asked(server, place)

    assert report.figures()["correct"] == Figure.of(1, 3)
    assert report.figures("basic")["correct"] == Figure.of(1, 2)
    assert report.figures("advanced")["has_code"] == Figure.of(0, 1)


async def test_an_error_counts_as_wrong_and_is_told_apart(server, place):
    report = await asked(server, place)

    assert report.unanswered == 1
    assert report.answers[2].text == ""


async def test_two_subjects_are_compared_question_by_question(server, place):
    worse = await asked(server, place)
    server.answers[SECOND.question] = SECOND.reference
    better = await asked(server, place)

    found = compare(better, worse, "correct")

    assert (found.first.hits, found.second.hits, found.gain) == (2, 1, pytest.approx(1 / 3))
    assert found.interval.low < 0 < found.interval.high
    assert compare(better, worse, "correct", "advanced").gain == 0


async def test_a_report_is_read_as_it_was_written_unless_its_questions_are_others(
    server, place, tmp_path
):
    report = await asked(server, place)
    path = tmp_path / "deep" / "report.json"
    docs_benchmark.write(report, path)

    assert docs_benchmark.read(path) == report

    path.write_text(path.read_text().replace(report.benchmark, "0" * 64))
    with pytest.raises(TrainerError, match="another version of the questions"):
        docs_benchmark.read(path)


async def test_a_server_that_answers_nothing_is_told(server, place):
    server.answers.clear()

    with pytest.raises(TrainerError, match="answered none of 3 questions"):
        await asked(server, place)
