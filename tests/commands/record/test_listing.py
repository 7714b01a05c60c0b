"""headrace record ls, show, tail: both forms of the record."""

from __future__ import annotations

import re
from pathlib import Path

import msgspec
import pytest

from proxy.protocol.exchange import Exchange
from tests.commands.record.recorded import ROUTES, run
from tests.record.examples import DAY, NOW, exchange, write


def test_ls_and_show_find_both_forms(routes: Path, capsys: pytest.CaptureFixture[str]):
    capsys.readouterr()
    assert run(routes, "ls") == 0
    listed = capsys.readouterr().out.splitlines()
    assert run(routes, "show", "req-a") == 0
    shown = msgspec.json.decode(capsys.readouterr().out, type=Exchange)

    assert [re.split(" +", line)[2] for line in listed] == ["a", "b"]
    assert shown.id == "a"


@pytest.mark.parametrize("command", ["ls", "tail"])
def test_name_in_a_record_steers_no_terminal(
    routes: Path, capsys: pytest.CaptureFixture[str], command: str
):
    write(routes.parent / "record", exchange("c", domain="a\x1b[2J\n"))
    capsys.readouterr()

    assert run(routes, command) == 0

    assert "a⟨U+001B⟩[2J⟨U+000A⟩" in capsys.readouterr().out.splitlines()[-1]


@pytest.mark.parametrize("command", ["ls", "tail"])
def test_lists_as_json_tell_nothing_that_was_said(
    routes: Path, capsys: pytest.CaptureFixture[str], command: str
):
    capsys.readouterr()

    assert run(routes, command, "--json") == 0

    *_, last = map(msgspec.json.decode, capsys.readouterr().out.splitlines())
    assert (last["id"], last["domain"], last["caller"]) == ("b", "chat", "other")
    assert last["backends"] == ["local"]
    assert not {"request", "attempts"} & set(last)


def test_tail_shows_the_last_lines(routes: Path, capsys: pytest.CaptureFixture[str]):
    write(routes.parent / "record", exchange("c"))
    capsys.readouterr()

    assert run(routes, "tail", "-n", "1") == 0

    assert re.split(" +", capsys.readouterr().out)[2] == "c"


def test_ls_may_begin_later(routes: Path, capsys: pytest.CaptureFixture[str]):
    write(routes.parent / "record", exchange("late", started_at=NOW + 5 * DAY))
    capsys.readouterr()

    assert run(routes, "ls", "--since", "2026-02-04") == 0

    (line,) = capsys.readouterr().out.splitlines()
    assert re.split(" +", line)[2] == "late"


def test_ls_of_segments_alone_may_begin_later(tmp_path: Path, capsys: pytest.CaptureFixture[str]):
    path = tmp_path / "routes.yaml"
    path.write_text(ROUTES)
    write(tmp_path / "record", exchange("early"), exchange("late", started_at=NOW + 5 * DAY))

    assert run(path, "ls", "--since", "2026-02-04") == 0

    (line,) = capsys.readouterr().out.splitlines()
    assert re.split(" +", line)[2] == "late"
