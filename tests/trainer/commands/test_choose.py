"""headrace-trainer choose: reports in, a choice and the chosen's reports out."""

from __future__ import annotations

from pathlib import Path

import msgspec

from tests.trainer.answers import answered, report
from trainer.__main__ import main
from trainer.choose import Choice
from trainer.evaluate import Report, read


def written(directory: Path, made: Report) -> str:
    path = directory / f"{made.subject}-{made.side}.json"
    path.write_bytes(msgspec.json.encode(made))
    return str(path)


def reports(directory: Path, name: str, wrong: int) -> list[str]:
    """Of both sides; the first answers are wrong, and break their schema."""
    made = [answered(f"r{n}", right=n >= wrong, valid=n >= wrong) for n in range(60)]
    other = [msgspec.structs.replace(one, row=f"u{n}") for n, one in enumerate(made)]
    return [
        written(directory, report(name, made)),
        written(directory, report(name, other, "unseen")),
    ]


def test_the_chosen_one_s_reports_are_written_for_the_gate(tmp_path: Path, capsys):
    paths = [*reports(tmp_path, "geo-v8", 20), *reports(tmp_path, "all-v3", 25)]
    options = [word for path in paths for word in ("--option", path)]

    main(["choose", *options, "--in-turn", "--out", str(tmp_path / "out")])

    choice = msgspec.json.decode((tmp_path / "out" / "choice.json").read_bytes(), type=Choice)
    assert choice.asks == ("geo-v8",)
    chosen = [read(path) for path in sorted((tmp_path / "out").glob("chosen-*.json"))]
    assert [(str(one.subject), one.side) for one in chosen] == [
        ("geo-v8", "seen"),
        ("geo-v8", "unseen"),
    ]
    assert "no other is shown to surpass" in capsys.readouterr().out


def test_one_that_is_shown_to_be_better_is_told(tmp_path: Path, capsys):
    paths = [*reports(tmp_path, "geo-v8", 20), *reports(tmp_path, "all-v3", 0)]
    options = [word for path in paths for word in ("--option", path)]

    main(["choose", *options, "--in-turn"])

    told = " ".join(capsys.readouterr().out.split())
    assert "all-v3 is the simplest that no other is shown to surpass: +33.3 points" in told


def test_one_option_is_no_choice(tmp_path: Path, capsys):
    status = main(["choose", "--option", reports(tmp_path, "geo-v8", 20)[0]])

    assert status == 1
    assert "one option is no choice" in capsys.readouterr().err
