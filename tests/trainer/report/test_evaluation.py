"""The page of an evaluation: the verdict first, all text escaped, the same figures in JSON."""

from __future__ import annotations

import re

import msgspec
import pytest

pytest.importorskip("matplotlib", reason="needs the train extra")

from tests.trainer.answers import calls, none, report
from tests.trainer.examples import row, weather
from trainer import evaluate as evaluation
from trainer.__main__ import main
from trainer.errors import TrainerError
from trainer.figures import Figure
from trainer.gate import decide
from trainer.gate_rules import Evidence
from trainer.recipe import GateSettings
from trainer.report import index
from trainer.report.evaluation import Twin, Version, html, write
from trainer.report.evaluation import report as made

HOSTILE = "<script>alert(1)</script><img src=x onerror=alert(2)>"
RIGHT = [*calls([True] * 100), *none([True] * 40)]
WRONG = [*calls([n % 4 > 0 for n in range(100)]), *none([n > 2 for n in range(40)])]


def evidence() -> Evidence:
    hostile = [
        msgspec.structs.replace(a, calls=[(HOSTILE, HOSTILE)]) if not a.score.call_exact else a
        for a in WRONG
    ]
    return Evidence(
        candidate=[report("api-v2", hostile)],
        champion=[report("api-v1", WRONG)],
        cloud=[report(f"cloud {HOSTILE}", RIGHT)],
    )


def twin(**more) -> Twin:
    shown = evidence()
    asked = {"c0": row(weather(), question=f"Rain? {HOSTILE}")}
    return made(shown, decide(shown, GateSettings()), asked, **more)


def test_the_verdict_comes_first():
    page = html(twin())

    assert page.index("it is right too seldom") < page.index("<h2>Rules</h2>") < page.index("<svg ")
    assert 'class="verdict bad"' in page


def test_what_models_and_people_wrote_stays_text():
    page = html(twin())

    assert "<script" not in page and "<img" not in page
    assert "&lt;script&gt;alert(1)&lt;/script&gt;" in page
    assert 'http-equiv="Content-Security-Policy" content="default-src \'none\'' in page


def test_figures_have_their_count_and_interval():
    page = html(twin())

    assert "75% [66%, 82%] n=100" in page
    assert re.search(r"Beside the cloud: -20\.0 pt \[-2\d\.\d pt, -1\d\.\d pt\]", page)
    assert "n = 140 pairs" in page


def test_errors_stand_side_by_side_those_first_that_the_cloud_got_right():
    found = twin().mistakes

    assert len(found) == 12
    assert found[0].said.keys() == {"candidate", "champion", "cloud"}
    (asked,) = [one for one in found if one.row == "c0"]
    assert (asked.asked, asked.right) == (f"Rain? {HOSTILE}", 'weather({"city": "Oslo"})')


def test_versions_make_a_curve():
    history = [Version(name=f"api-v{n}", figure=Figure.of(n * 10, 100)) for n in (1, 2, 3)]

    assert "Over the versions" in html(twin(history=history))
    assert "Over the versions" not in html(twin())


def test_the_twin_has_the_same_figures(tmp_path):
    found = twin()

    write(found, tmp_path)

    assert msgspec.json.decode((tmp_path / "report.json").read_bytes(), type=Twin) == found


def test_an_index_links_all_reports(tmp_path):
    write(twin(), tmp_path / "one")
    write(twin(), tmp_path / "two & three")
    (tmp_path / "other").mkdir()
    (tmp_path / "other" / "report.json").write_text("{}")

    page = index.write(tmp_path).read_text()

    assert 'href="one/index.html"' in page and 'href="two%20%26%20three/index.html"' in page
    assert page.count("<a ") == 2


def test_an_index_of_nothing_is_told(tmp_path):
    with pytest.raises(TrainerError, match="holds no report"):
        index.write(tmp_path)


def test_a_report_is_not_overwritten_by_an_index(tmp_path):
    write(twin(), tmp_path)

    with pytest.raises(TrainerError, match="is a report itself"):
        index.write(tmp_path)


def test_the_command_writes_page_and_index(tmp_path, capsys):
    for role, reports in (("candidate", evidence().candidate), ("cloud", evidence().cloud)):
        evaluation.write(reports[0], tmp_path / f"{role}.json")
    where = ("--candidate", f"{tmp_path}/candidate.json", "--cloud", f"{tmp_path}/cloud.json")

    assert main(["report", "show", *where, "--out", f"{tmp_path}/pages/one"]) == 0
    assert main(["report", "index", f"{tmp_path}/pages"]) == 0

    assert "refuse" in (tmp_path / "pages" / "one" / "index.html").read_text()
    assert "api-v2" in (tmp_path / "pages" / "index.html").read_text()
