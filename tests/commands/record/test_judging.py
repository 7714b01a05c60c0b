"""headrace record feedback."""

from __future__ import annotations

from pathlib import Path

import pytest

from proxy.protocol.segments import read_segment, segments
from tests.commands.record.recorded import run


def test_feedback_is_appended_and_found(routes: Path, capsys: pytest.CaptureFixture[str]):
    given = ["--exchange", "b", "--kind", "comment", "--value", "mail me@example.com"]
    capsys.readouterr()

    assert run(routes, "feedback", *given) == 0
    id = capsys.readouterr().out.strip()
    sql = "SELECT feedback.id FROM feedback JOIN exchanges ON exchange_id = exchanges.id"
    assert run(routes, "query", sql) == 0

    assert id in capsys.readouterr().out
    newest = segments(routes.parent / "record")[-1]
    assert "<email:" in next(iter(read_segment(newest))).value


@pytest.mark.parametrize(
    "given",
    [
        ["--kind", "boolean", "--value", "yes", "--exchange", "b"],
        ["--kind", "float", "--value", "much", "--exchange", "b"],
        ["--kind", "comment", "--value", "x"],
    ],
)
def test_feedback_that_makes_no_sense_is_refused(routes: Path, given: list[str]):
    assert run(routes, "feedback", *given) == 2
