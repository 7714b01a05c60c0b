"""`headrace-trainer judge`: people rate blindly, and a judge is told apart from one that counts."""

from __future__ import annotations

import asyncio
import io
from collections.abc import AsyncIterator
from pathlib import Path

import msgspec
import pytest
from starlette.applications import Starlette
from starlette.routing import Route

pytest.importorskip("openai", reason="needs the dev extra")
pytest.importorskip("gguf", reason="needs the train extra")

from tests.serving import listening
from tests.trainer.scorers.test_judge import Scripted, to_position
from trainer import docs_benchmark
from trainer.__main__ import main
from trainer.benchmarks import SHA256, python_docs
from trainer.docs_benchmark import UNMARKED, DocsAnswer, DocsReport
from trainer.subject import Subject
from trainer.trust import read_ratings

BELL = "worth 4 \x1b[2J\x07 [red]"


@pytest.fixture
def reports(tmp_path) -> tuple[str, str]:
    """Two subjects' answers to the first ten questions."""
    paths = []
    for name, text in (("api-v1", "worth 2"), ("api-v2", BELL)):
        answers = [
            DocsAnswer(id=q.id, category=q.category, text=text, marks=UNMARKED)
            for q in python_docs()[:10]
        ]
        report = DocsReport(subject=Subject(name), benchmark=SHA256, answers=answers)
        docs_benchmark.write(report, tmp_path / f"{name}.json")
        paths.append(str(tmp_path / f"{name}.json"))
    return paths[0], paths[1]


@pytest.fixture
async def judge(tmp_path, monkeypatch) -> AsyncIterator[Scripted]:
    """A scripted judge on a real socket."""
    monkeypatch.setenv("HEADRACE_CACHE", str(tmp_path / "cache"))
    made = Scripted(to_position)
    app = Starlette(routes=[Route("/v1/chat/completions", made.answer, methods=["POST"])])
    async with listening(app) as base_url:
        made.base_url = base_url
        yield made


def rate(reports: tuple[str, str], ratings: Path, typed: str, monkeypatch, count: int = 3) -> None:
    monkeypatch.setattr("sys.stdin", io.StringIO(typed))
    options = ("--by", "ada", "--ratings", str(ratings), "--count", str(count))
    assert main(["judge", "rate", *options, *reports]) == 0


def test_a_person_rates_and_goes_on_later(reports, tmp_path, monkeypatch, capsys):
    ratings = tmp_path / "ratings.jsonl"

    rate(reports, ratings, "5\n4\n9\n3\n2\nq\n", monkeypatch)
    rate(reports, ratings, "1\n" * 8, monkeypatch)

    levels = [rating.level for rating in read_ratings(ratings)]
    assert levels == [5, 4, 3, 2, *[1] * 8]
    assert len({rating.item for rating in read_ratings(ratings)}) == 3
    assert "3 answers are rated by ada" in capsys.readouterr().out


def test_a_person_does_not_see_whose_answer_it_is(reports, tmp_path, monkeypatch, capsys):
    rate(reports, tmp_path / "ratings.jsonl", "3\n" * 80, monkeypatch, count=20)

    shown = capsys.readouterr().out
    assert "api-v" not in shown
    assert "\x1b[2J" not in shown and "\x07" not in shown and "[red]" in shown


async def test_a_biased_judge_is_told_and_does_not_count(reports, judge, tmp_path, capsys):
    options = ("--base-url", judge.base_url, "--model", "judge", "--out", f"{tmp_path}/judged.json")

    code = await asyncio.to_thread(main, ["judge", "run", *options, *reports])

    shown = " ".join(capsys.readouterr().out.split())
    assert code == 0
    assert "judge-2026-11-01 does not count:" in shown
    assert "it goes by position: the answer shown first wins 100%" in shown
    assert "people rated 0 of its answers; 50 are needed" in shown
    assert "better: neither 100%" in shown
    kept = msgspec.json.decode((tmp_path / "judged.json").read_bytes())
    assert len(kept["judgements"]) == 10


def test_a_report_of_other_questions_is_told(reports, tmp_path, capsys):
    path = Path(reports[0])
    path.write_text(path.read_text().replace(SHA256, "0" * 64))

    assert main(["judge", "rate", "--by", "a", "--ratings", f"{tmp_path}/r", *reports]) == 1
    assert "another version of the questions" in capsys.readouterr().err
