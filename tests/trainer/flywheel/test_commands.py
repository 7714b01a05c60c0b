"""`run`, `watch`, `status`, `history` and `diff`, as they are typed."""

from __future__ import annotations

from pathlib import Path

import msgspec
import pytest
import yaml

from tests.trainer.flywheel import settings_files
from trainer.__main__ import main


@pytest.fixture
def path(record: Path, base: Path, tmp_path: Path) -> Path:
    """Settings of a domain with 120 rows, which are too few for a run."""
    return settings_files.write(tmp_path, record, base, least_new=1000)


def typed(capsys: pytest.CaptureFixture[str], command: str, path: Path, *more: str) -> str:
    """What a command that succeeds prints."""
    assert main([command, "--settings", str(path), *more]) == 0
    return capsys.readouterr().out


def lines(printed: str) -> list[dict[str, object]]:
    return [msgspec.json.decode(line) for line in printed.splitlines()]


# ------------------------------------------------------------------ run


def test_run_says_why_there_is_nothing_to_do(capsys, path):
    printed = typed(capsys, "run", path, "--domain", "all")

    assert printed == (
        "all: nothing to do. 120 new clean rows since the last run; `least_new` asks for 1000.\n"
    )


def test_run_tells_machines_one_object_a_line(capsys, path):
    (line,) = lines(typed(capsys, "run", path, "--all", "--json"))

    assert (line["event"], line["domain"]) == ("nothing_to_do", "all")


def test_a_dry_run_says_what_it_would_do(capsys, path):
    printed = typed(capsys, "run", path, "--domain", "all", "--dry-run", "--anyway")

    assert printed == "all: would begin a run that makes all-v1, with 120 new rows\n"


def test_one_domain_that_fails_leaves_the_others_their_turn(capsys, path):
    settings = yaml.safe_load(path.read_text())
    alone = settings["domains"]["all"]
    settings["domains"] = {"lost": alone | {"record": "nowhere"}, "all": alone}
    path.write_text(yaml.safe_dump(settings, sort_keys=False))

    assert main(["run", "--settings", str(path), "--all"]) == 1

    printed = capsys.readouterr()
    assert printed.out.startswith("all: nothing to do.")
    assert printed.err.startswith("headrace-trainer: lost: ")
    assert "there is no such record" in printed.err


# ------------------------------------------------------------------ watch, status


def test_watch_shows_each_trigger_and_runs_what_is_due(capsys, path):
    printed = typed(capsys, "watch", path, "--once")

    assert printed.startswith("all\n  ○ rows ")
    assert not (path.parent / "runs").exists() or not any((path.parent / "runs").iterdir())


def test_watch_tells_machines_its_readings(capsys, path):
    read = lines(typed(capsys, "watch", path, "--once", "--json"))

    assert {line["event"] for line in read} == {"trigger_read"}
    assert "rows" in {line["name"] for line in read}
    assert not any(line["due"] for line in read)


def test_status_before_any_run(capsys, path):
    printed = typed(capsys, "status", path)
    (told,) = lines(typed(capsys, "status", path, "--json"))

    assert printed.startswith("all  champion none\n  ○ rows ")
    assert (told["domain"], told["champion"], told["run"]) == ("all", None, None)


# ------------------------------------------------------------------ history, diff


@pytest.fixture
def ran(capsys: pytest.CaptureFixture[str], record: Path, base: Path, tmp_path: Path) -> Path:
    """Settings of a domain with two runs that failed, as no row is so short."""
    for tokens in ("8", "9"):
        short = {"max_tokens": int(tokens)}
        path = settings_files.write(tmp_path, record, base, training=short)
        assert main(["run", "--settings", str(path), "--domain", "all", "--anyway"]) == 1
        printed = capsys.readouterr()
        assert "  ✓ rows  " in printed.out and "  ✗ dataset  " in printed.out
        assert "no row is left" in printed.err
    return path


def test_history_has_a_line_for_each_run(capsys, ran):
    told = lines(typed(capsys, "history", ran, "--json"))

    assert [one["adapter"] for one in told] == ["all-v1", "all-v2"]
    assert {one["outcome"] for one in told} == {"failed"}
    assert "│ failed  │ dataset: no row" in typed(capsys, "history", ran)


def test_diff_shows_what_two_runs_differ_in(capsys, ran):
    printed = typed(capsys, "diff", ran, "all-v1", "all-v2")
    (told,) = lines(typed(capsys, "diff", ran, "all-v1", "all-v2", "--json"))

    assert "  training.max_tokens: 8 → 9\n" in printed
    assert "figures alike" in printed
    assert told["recipe"] == ["training.max_tokens: 8 → 9"]


def test_diff_of_a_run_that_is_not_there(capsys, ran):
    assert main(["diff", "--settings", str(ran), "all-v1", "all-v9"]) == 1

    (line,) = capsys.readouterr().err.splitlines()
    assert "all-v9" in line
