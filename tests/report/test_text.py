from proxy.report.text import aligned, lines
from tests.report.examples import find
from tests.report.test_ab import made
from tests.report.test_figures import PAIRS, pair


def test_the_verdict_comes_first_and_every_figure_has_its_n():
    told = list(aligned(lines(made())))

    assert told[0].startswith("Not decidable with n=4 pairs that have a known right answer")
    assert any(line.startswith("agreement") and "33.3 %" in line and " 6 " in line for line in told)
    assert any("both right 1, only candidate 1, only baseline 1, neither 1" in x for x in told)


def test_columns_are_aligned():
    told = list(aligned([("a", "b"), ("long", "c"), "text", ("x", "y")]))

    assert told == ["a     b", "long  c", "text", "x  y"]


def test_names_that_requests_made_up_cannot_move_the_cursor():
    evil = pair("e", find("Rome"), find("Rome"), domain="\x1b[2J", tenant="x" * 200)

    told = "\n".join(aligned(lines(made([*PAIRS, evil]))))

    assert "\x1b" not in told
    assert "x" * 100 not in told


def test_what_was_left_out_is_told():
    assert "left out: not kept 3" in list(lines(made(not_kept=3)))


def test_without_pairs_the_verdict_is_all():
    assert len(list(lines(made([])))) == 1
