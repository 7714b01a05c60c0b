"""headrace report …: every command, on a record of both forms."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import msgspec
import pytest

from proxy.__main__ import main
from proxy.protocol.exchange import Answer
from proxy.report.ab import Report
from proxy.report.costs import Bill
from tests.record.examples import NOW, exchange, write
from tests.report.examples import (
    attempt,
    find,
    pair,
    routes,
    simulated,
    told,
)

SINCE = ("--since", "2026-01-01")
COSTS = """
costs:
  hardware: [{name: card, price: 360, life_months: 36, watts: 100}]
  duty: 0
  per_kwh: 0.2
  instead_of: gpt-4o
"""


@pytest.fixture
def settings(tmp_path: Path) -> Path:
    """Settings whose record has half of 60 pairs in the archive, and half in a segment."""
    path = routes(tmp_path)
    records = list(simulated(60, cloud=0.9, local=0.5, demonstrated=0.5))
    write(tmp_path / "record", *records[: len(records) // 2])
    assert main(["record", "compact", "--config", str(path)]) == 0
    write(tmp_path / "record", *records[len(records) // 2 :])
    return path


def run(settings: Path, *arguments: str) -> int:
    return main(["report", *arguments, "--config", str(settings)])


def reported(settings: Path, *arguments: str) -> Report:
    target = settings.parent / "report.json"
    run(settings, "ab", *SINCE, "--json", str(target), *arguments)
    return msgspec.json.decode(target.read_bytes(), type=Report)


def test_json_without_a_file_takes_the_screen(settings: Path, capsys):
    run(settings, "ab", *SINCE, "--json")

    msgspec.json.decode(capsys.readouterr().out, type=Report)


def test_a_table_a_page_and_json_are_of_one_report(settings: Path, capsys):
    page = settings.parent / "report.html"

    report = reported(settings, "--html", str(page))

    assert report.figures.pairs == 60
    assert report.contest.candidate == "local" and report.contest.baseline == "azure"
    assert report.verdict.sentence in capsys.readouterr().out
    assert "local against azure" in page.read_text()


@pytest.mark.parametrize(
    ("truth", "status"),
    [
        ({"cloud": 0.5, "local": 1.0}, 0),
        ({"cloud": 1.0, "local": 1.0}, 10),
        ({"cloud": 1.0, "local": 0.5}, 20),
    ],
)
def test_the_exit_status_is_the_verdict(tmp_path: Path, truth, status):
    path = routes(tmp_path)
    write(tmp_path / "record", *simulated(400, **truth))

    assert run(path, "ab", *SINCE) == status


def test_nothing_recorded_is_undecided(tmp_path: Path, capsys):
    path = routes(tmp_path)
    (tmp_path / "record").mkdir()

    assert run(path, "ab") == 30
    assert "no pair of candidate and baseline is recorded" in capsys.readouterr().out


@pytest.mark.parametrize(
    ("chosen", "pairs"),
    [
        (("--domain", "geo"), 60),
        (("--domain", "other"), 0),
        (("--tenant", "t"), 60),
        (("--tenant", "other"), 0),
        (("--until", "2026-01-31"), 0),
        (("--since", "1h"), 0),
        (("--candidate", "geo-v7", "--baseline", "azure"), 60),
        (("--candidate", "geo-v8", "--baseline", "azure"), 0),
    ],
)
def test_a_report_is_of_what_was_chosen(settings: Path, chosen, pairs):
    assert reported(settings, *chosen).figures.pairs == pairs


def test_the_last_demonstration_counts(tmp_path: Path):
    path = routes(tmp_path)
    records = pair("a", find("Rome"), find("Oslo"), find("Rome"))
    late = msgspec.structs.replace(
        records[-1], id="feedback-2", given_at=NOW + 600, value=find("Oslo")
    )
    write(tmp_path / "record", *records, late)

    accuracy = reported(path).figures.accuracy

    assert accuracy is not None
    assert (accuracy.only_candidate, accuracy.difference.n) == (1, 1)


def test_a_demonstration_of_another_tenant_counts_for_nothing(tmp_path: Path):
    path = routes(tmp_path)
    *records, shown = pair("a", find("Rome"), find("Oslo"), find("Rome"))
    write(tmp_path / "record", *records, msgspec.structs.replace(shown, tenant="other"))

    assert reported(path).figures.accuracy is None


def test_an_encrypted_record_is_read_with_its_key(tmp_path: Path):
    path = routes(tmp_path)
    key = "MDEyMzQ1Njc4OTAxMjM0NTY3ODkwMTIzNDU2Nzg5MDE="
    sealed = f"record: {{directory: record, encryption: {{use: k, keys: {{k: {key}}}}}}}"
    path.write_text(path.read_text().replace("record: {directory: record}", sealed))
    from proxy.config import load
    from proxy.record.keys import keyring

    ring = keyring(load(path).record)
    write(tmp_path / "record", *pair("a", find("Rome"), find("Rome"), find("Rome")), keyring=ring)
    write(tmp_path / "record", *pair("b", find("Rome"), find("Rome")), keyring=ring)

    found = reported(path)

    assert (found.figures.pairs, found.figures.accuracy.difference.n) == (2, 1)


def test_live_sides_are_reported_without_pairs(tmp_path: Path, capsys):
    path = routes(tmp_path)
    sides = [
        exchange(
            f"{n}", assigned=side, attempts=[attempt("azure", told("Hi."))], conversation=f"{n}"
        )
        for n, side in enumerate(["split:azure", "split:local"] * 5)
    ]
    write(tmp_path / "record", *sides)

    (trial,) = reported(path).trials

    assert (trial.first, trial.second) == ("split:azure", "split:local")
    assert trial.shares[0].first.n == 5
    assert "live comparison" in capsys.readouterr().out


def test_examples_may_be_left_out(settings: Path):
    assert reported(settings).examples
    assert not reported(settings, "--no-examples").examples


@pytest.mark.parametrize(
    ("arguments", "complaint"),
    [
        (("--margin", "3"), "--margin 3.0: a share between 0 and 1"),
        (("--candidate", "local"), "name both --candidate and --baseline"),
    ],
)
def test_what_cannot_be_followed_is_told(settings: Path, capsys, arguments, complaint):
    assert run(settings, "ab", *arguments) == 2
    assert complaint in capsys.readouterr().err


def test_a_time_that_is_none_is_told(settings: Path, capsys):
    with pytest.raises(SystemExit) as stopped:
        run(settings, "ab", "--since", "yesterday")

    assert stopped.value.code == 2
    assert "neither like 7d nor like 2026-01-30" in capsys.readouterr().err


def test_a_page_that_cannot_be_written_is_told(settings: Path, capsys):
    assert run(settings, "ab", *SINCE, "--html", str(settings.parent / "no" / "page.html")) == 1
    assert "No such file or directory" in capsys.readouterr().err


def test_without_a_record_there_is_nothing_to_report(tmp_path: Path, capsys):
    path = routes(tmp_path)
    path.write_text(path.read_text().replace("record: {directory: record}", ""))

    assert run(path, "ab") == 2
    assert "no `record` section" in capsys.readouterr().err


# ---------------------------------------------------------------- costs


@pytest.fixture
def switched(tmp_path: Path) -> Path:
    """A record of a cloud, and from the second day on of home, with a shadow in the cloud."""
    path = routes(tmp_path)
    path.write_text(path.read_text() + COSTS)
    day = 24 * 60 * 60
    cloud = attempt("azure", told("Hi."), model="gpt-4o", cost_usd=1.0)
    home = [
        exchange(f"home-{n}", attempts=[_home(NOW + day * n)], started_at=NOW + day * n)
        for n in range(40, 50)
    ]
    shadow = pair("home-49", Answer(), Answer())[1]
    asked = attempt("azure", told("Hi."), model="gpt-4o", kind="shadow", cost_usd=0.00055)
    late = msgspec.structs.replace(asked, started_at=NOW + day * 49)
    write(
        tmp_path / "record",
        exchange("before", attempts=[cloud], started_at=NOW),
        *home,
        msgspec.structs.replace(shadow, attempt=late),
    )
    return path


def _home(at: float):
    return attempt("local", told("Hi."), adapter="geo-v7", started_at=at)


def billed(settings: Path, *arguments: str) -> Bill:
    target = settings.parent / "costs.json"
    assert run(settings, "costs", "--json", str(target), *arguments) == 0
    return msgspec.json.decode(target.read_bytes(), type=Bill)


def test_costs_are_reckoned_since_home_first_answered(switched: Path, capsys):
    found = billed(switched, "--until", "2026-04-01")

    # 100 tokens in and 20 out at 2.50 and 10 dollars a million; the cloud's own bill was 0.00055
    # for what is 0.00045 by these tokens.
    assert found.since == NOW + 40 * 24 * 60 * 60
    assert (found.at_home, found.factor.n) == (10, 1)
    assert found.factor.value == pytest.approx(0.00055 / 0.00045)
    assert found.cloud_instead == pytest.approx(10 * 0.00055)
    assert found.paid.shadows_usd == pytest.approx(0.00055)
    assert found.paid.answers_usd == 0
    assert found.cheaper == "cloud"
    assert "The cloud would be cheaper" in capsys.readouterr().out


def test_costs_bear_a_share_of_the_hardware(switched: Path):
    whole = billed(switched, "--until", "2026-04-01")
    none = billed(switched, "--since", "2026-03-13", "--until", "2026-04-01", "--domain", "other")

    assert whole.own is not None and whole.own["hardware"] == pytest.approx(
        10 * 19.5 / 30.4, rel=0.1
    )
    assert none.own is not None and none.own["hardware"] == 0


def test_without_an_answer_at_home_there_is_nothing_to_reckon(tmp_path: Path, capsys):
    path = routes(tmp_path)
    write(tmp_path / "record", exchange("a", attempts=[attempt("azure", told("Hi."))]))

    assert run(path, "costs") == 1
    assert "no request was answered at home yet" in capsys.readouterr().err


def test_without_the_extra_the_remedy_is_told(settings: Path):
    hidden = "import sys; sys.modules['scipy'] = None; from proxy.__main__ import main; "
    script = f"{hidden}sys.exit(main(['report', 'ab', '--config', {str(settings)!r}]))"

    done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True)

    assert done.returncode == 2
    assert "pip install 'headrace[report]'" in done.stderr


def test_costs_in_the_settings_are_checked(settings: Path, capsys):
    settings.write_text(settings.read_text() + "costs: {hardware: [], duty: 2, per_kwh: 1}\n")

    assert run(settings, "costs") == 2
    assert "costs" in capsys.readouterr().err
