import pytest

from proxy.report.estimates import Observed
from proxy.report.verdict import EXIT, Names, Verdict, verdict

NAMES = Names(candidate="local", baseline="azure")
NONE = Observed([], [])


def seen(*groups: tuple[float, int]) -> Observed:
    """So many pairs of each value, each a conversation of its own, evenly mixed."""
    values = [value for value, count in groups for _ in range(count)]
    return Observed(values, [f"{number}" for number in range(len(values))])


def judged(differences: Observed = NONE, agreeing: Observed = NONE) -> Verdict:
    return verdict(differences, agreeing, 0.03, NAMES)


@pytest.mark.parametrize(
    ("differences", "word"),
    [
        (seen((1, 60), (-1, 10), (0, 130)), "better"),
        (seen((1, 20), (-1, 20), (0, 4000)), "not_worse"),
        (seen((1, 10), (-1, 60), (0, 130)), "worse"),
        (seen((1, 5), (-1, 5), (0, 40)), "undecided"),
    ],
)
def test_demonstrations_decide(differences, word):
    found = judged(differences)

    assert (found.word, found.basis, found.n) == (word, "demonstrations", len(differences.values))


def test_worse_but_within_the_margin_is_not_worse():
    found = judged(seen((1, 10), (-1, 300), (0, 60_000)))

    assert found.interval is not None and -0.03 < found.interval.low < found.interval.high < 0
    assert found.word == "not_worse"


def test_answers_that_agree_cannot_differ_in_being_right():
    found = judged(agreeing=seen((1, 995), (0, 5)))

    assert (found.word, found.basis) == ("not_worse", "agreement")
    assert "they agree in at least 98.5 %" in found.sentence


def test_more_pairs_are_asked_for_where_they_would_help():
    found = judged(agreeing=seen((1, 198), (0, 2)))

    assert found.word == "undecided"
    assert found.more is not None and 100 < found.more < 2000
    assert "n=200" in found.sentence and "more pairs are needed" in found.sentence


def test_so_many_more_pairs_would_have_decided():
    first = judged(agreeing=seen((1, 198), (0, 2)))
    assert first.more is not None
    times = (200 + first.more) / 200

    found = judged(agreeing=seen((1, round(198 * times)), (0, round(2 * times))))

    assert found.word == "not_worse"


def test_demonstrations_are_asked_for_where_more_pairs_would_not_help():
    found = judged(agreeing=seen((1, 150), (0, 50)))

    assert (found.word, found.more) == ("undecided", None)
    assert "right answers given as feedback: for about 1\u202f700 pairs" in found.sentence


def test_agreement_decides_where_demonstrations_are_few():
    found = judged(seen((0, 5)), seen((1, 2000), (0, 5)))

    assert (found.word, found.basis, found.certainty) == ("not_worse", "agreement", 0.975)


def test_without_pairs_nothing_is_decidable():
    found = judged()

    assert (found.word, found.basis, found.n) == ("undecided", "nothing", 0)


def test_each_verdict_has_an_exit_status_of_its_own():
    assert len(set(EXIT.values())) == 4
    assert not {1, 2} & set(EXIT.values())
