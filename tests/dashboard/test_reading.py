"""The process that reads: what it is given, and what becomes of it when it does not answer."""

from __future__ import annotations

import asyncio
import time
from pathlib import Path

import pytest

from proxy.dashboard import reading
from proxy.dashboard.questions import Look, Refusal, Search, SearchFound, Span
from proxy.dashboard.reading import Reading
from tests.dashboard.visiting import with_past, with_record
from tests.serving import settings

SPAN = Span(since=time.time() - 30 * 24 * 60 * 60, until=time.time() + 60)


@pytest.fixture
def past(tmp_path: Path) -> Path:
    with_past(tmp_path / "record")
    return tmp_path


async def test_process_reads_the_record_and_is_asked_once(past: Path):
    asked = Reading(with_record(past), ["local"])
    question = Search(span=SPAN, text="find 7.")

    first, second = await asyncio.gather(asked.ask(question), asked.ask(question))
    with_past(past / "record")
    third = await asked.ask(question)
    asked.forget()
    fourth = await asked.ask(question)

    assert isinstance(first, SearchFound) and [row.id for row in first.rows] == ["7"]
    assert second is first and third is first
    assert isinstance(fourth, SearchFound) and len(fourth.rows) == 2


async def test_without_a_record_there_is_nothing_to_ask():
    refusal = await Reading(settings("local"), []).ask(Look(id="a", tenant="t"))

    assert isinstance(refusal, Refusal) and "`record` section" in refusal.told


async def test_slow_process_is_given_up_and_killed(past: Path):
    asked = Reading(with_record(past, "dashboard: {read_timeout_s: 0.05}"), ["local"])

    refusal = await asked.ask(Search(span=SPAN))

    assert isinstance(refusal, Refusal) and "longer than 0.05 s" in refusal.told
    assert _readers() == []


async def test_process_that_dies_is_told(past: Path, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(reading.sys, "executable", "/bin/false")

    refusal = await Reading(with_record(past), []).ask(Search(span=SPAN))

    assert isinstance(refusal, Refusal) and "the log says more" in refusal.told


def _readers() -> list[str]:
    """Children of this process that read."""
    ids = [
        id for path in Path("/proc/self/task").glob("*/children") for id in path.read_text().split()
    ]
    return [id for id in ids if b"dashboard.reader" in Path(f"/proc/{id}/cmdline").read_bytes()]
