from collections import Counter

import msgspec

from proxy.report.ab import Report, Scope, report
from proxy.report.pairs import Contest
from tests.record.examples import NOW
from tests.report.examples import find, told
from tests.report.test_figures import PAIRS, pair

CONTEST = Contest(baseline="azure", candidate="local")
SCOPE = Scope(since=NOW - 60, until=NOW + 60)


def made(pairs: list = PAIRS, **left_out: int) -> Report:
    return report(iter(pairs), CONTEST, SCOPE, Counter(left_out))


def test_a_report_holds_all_parts_and_survives_json():
    found = made(cut_short=2)

    again = msgspec.json.decode(msgspec.json.encode(found), type=Report)

    assert again == found
    assert found.left_out == {"cut_short": 2}
    assert found.verdict.word == "undecided"


def test_the_course_ends_with_the_figure_of_the_verdict():
    found = made([pair(f"{n}", find("Rome"), find("Rome", 2 + n % 2)) for n in range(100)])

    last = found.course[-1]
    assert len(found.course) == 40
    assert (last.n, last.value, last.interval) == (100, 0.5, found.verdict.interval)


def test_examples_are_the_latest_disagreements_of_each_kind():
    pairs = [pair(f"{n}", find(f"Rome {n}"), told("Where?")) for n in range(10)]

    found = made([*pairs, pair("x", find("Rome"), find("Rome", 3)), *PAIRS[:1]])

    assert [one.exchange for one in found.examples] == ["x", "9", "8", "7", "6"]
    assert found.examples[1].baseline == 'find({"city":"Rome 9","seats":2})'
    assert found.examples[1].candidate == "Where?"


def test_nothing_to_report_is_a_report():
    found = made([])

    assert found.verdict.basis == "nothing"
    assert (found.course, found.slices, found.examples) == ([], [], [])
