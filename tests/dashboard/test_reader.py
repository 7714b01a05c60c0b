"""What the reader finds in a record whose truth is known."""

from __future__ import annotations

import time
from pathlib import Path

import msgspec
import pytest

from proxy.dashboard import questions
from proxy.dashboard.questions import (
    FOUND,
    Agreements,
    AgreementsFound,
    Look,
    Order,
    Question,
    Refusal,
    Savings,
    SavingsFound,
    Search,
    SearchFound,
    SeenFound,
    Span,
    Traffic,
    TrafficFound,
)
from proxy.dashboard.reader import answer
from proxy.record.compact import Retention, compact
from proxy.record.settings import ArchiveSettings, RecordSettings
from tests.dashboard.visiting import HOSTILE, with_past
from tests.record.examples import archived, exchange, feedback, shadowed, shelf, spoil, write
from tests.report.examples import attempt, find, pair, request

DAY = 24 * 60 * 60


@pytest.fixture(scope="module")
def past(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """See `with_past`; half of it is in the archive."""
    directory = tmp_path_factory.mktemp("record")
    with_past(directory)
    compact(shelf(directory), Retention())
    return directory


def ask(directory: Path, question: Question):
    record = RecordSettings(directory=directory)
    order = Order(question=question, record=record, costs=None, local=["local"])
    return answer(questions.unpacked(questions.packed(order)))


def last(days: float) -> Span:
    return Span(since=time.time() - days * DAY, until=time.time() + 1)


# ---------------------------------------------------------------- traffic, money, agreement


def test_traffic_counts_by_backend_and_slot(past: Path):
    found = ask(past, Traffic(span=last(30)))

    assert isinstance(found, TrafficFound)
    ((share),) = found.shares
    assert (share.domain, share.backend, share.requests, share.completed) == ("geo", "azure", 41, 1)
    assert share.total_p50_s == pytest.approx(0.25)
    assert share.cost_usd == pytest.approx(0.041)
    (line,) = found.chart.lines
    assert line.name == "azure" and sum(v or 0 for v in line.values) == 41
    assert len(line.values) == len(found.chart.at) == questions.SLOTS


def test_shorter_span_has_less(past: Path):
    found = ask(past, Traffic(span=last(2.3)))

    assert isinstance(found, TrafficFound)
    assert found.shares[0].requests == 10


def test_fallbacks_are_told_by_reason(tmp_path: Path):
    now = time.time()
    first = attempt("local", find("x"), outcome="invalid", reason="schema_violation")
    second = attempt("azure", find("x"), kind="fallback")
    again = attempt("local", find("x"), kind="repair")
    write(
        tmp_path,
        exchange("rescued", started_at=now, attempts=[first, second]),
        exchange("repaired", started_at=now, attempts=[first, again]),
        exchange("plain", started_at=now, attempts=[again]),
    )

    found = ask(tmp_path, Traffic(span=last(1)))

    assert isinstance(found, TrafficFound)
    assert [(f.backend, f.reason, f.requests) for f in found.fallbacks] == [
        ("local", "schema_violation", 1)
    ]


def test_savings_are_those_of_the_report(tmp_path: Path):
    now = time.time()
    at_home = attempt("local", find("x"), started_at=now)
    write(tmp_path, exchange("a", model="gpt-4o", started_at=now, total_s=0.5, attempts=[at_home]))

    found = ask(tmp_path, Savings(span=last(1)))

    assert isinstance(found, SavingsFound) and found.money is not None
    # 100 tokens at 2.50 dollars a million, 20 at 10.
    assert found.money.saved == pytest.approx(0.00045)
    assert not found.money.is_known


def test_nothing_answered_at_home_saves_nothing(past: Path):
    assert ask(past, Savings(span=last(30))) == SavingsFound(money=None)


def test_agreement_has_intervals_that_hold_it(past: Path):
    found = ask(past, Agreements(span=last(12)))

    assert isinstance(found, AgreementsFound) and not found.is_cut
    (geo,) = found.domains
    assert (geo.candidate, geo.baseline, geo.pairs) == ("local", "azure", 41)
    # Three in four of 40; and a call where the cloud said something is none.
    assert geo.value == pytest.approx(30 / 41)
    assert geo.low < geo.value < geo.high
    assert geo.kinds == {"same": 30, "other_arguments": 10, "false_call": 1}
    (line,) = geo.chart.lines
    assert sum(line.counts) == 41
    for value, low, high, n in zip(line.values, line.lows, line.highs, line.counts, strict=True):
        assert (value is None) == (low is None) == (high is None) == (n == 0)
        assert value is None or (low or 0) <= value <= (high or 0)


# ---------------------------------------------------------------- exchanges


def ids(found: object) -> list[str]:
    assert isinstance(found, SearchFound)
    return [row.id for row in found.rows]


def test_search_finds_the_last_ones_first(past: Path):
    assert ids(ask(past, Search(span=last(30))))[:3] == ["evil", "39", "38"]


@pytest.mark.parametrize(
    ("fields", "expected"),
    [
        ({"text": "find 7."}, ["7"]),
        ({"text": "conv-7"}, ["7"]),
        ({"text": "7"}, None),
        ({"text": "ONERROR"}, ["evil"]),
        ({"text": "' OR 1=1 --"}, []),
        ({"text": "%"}, []),
        ({"domain": "api"}, []),
        ({"tenant": "other"}, []),
        ({"outcome": "failed"}, []),
        ({"backend": "azure", "tenant": "acme", "domain": "geo", "outcome": "completed"}, None),
    ],
)
def test_search_takes_what_is_asked_literally(past: Path, fields: dict[str, str], expected):
    found = ids(ask(past, Search(span=last(30), **fields)))

    assert found == expected if expected is not None else len(found) > 3


def test_search_has_pages(tmp_path: Path):
    now = time.time() - 60
    write(tmp_path, *(exchange(f"{n}", started_at=now - n) for n in range(FOUND + 3)))

    first = ask(tmp_path, Search(span=last(1)))
    second = ask(tmp_path, Search(span=last(1), page=1))

    assert isinstance(first, SearchFound) and isinstance(second, SearchFound)
    assert (len(first.rows), first.has_more) == (FOUND, True)
    assert ([row.id for row in second.rows], second.has_more) == (["50", "51", "52"], False)


def test_row_says_what_is_beside(tmp_path: Path):
    now = time.time()
    first = attempt("local", find("x"), outcome="invalid", reason="schema_violation")
    second = attempt("azure", find("x"), kind="fallback")
    write(
        tmp_path,
        exchange("a", started_at=now, attempts=[first, second], request=request("x " * 999)),
        exchange("b", started_at=now - 1, level="metadata", request=msgspec.Raw(b"{}")),
        feedback("f", "a"),
    )

    found = ask(tmp_path, Search(span=last(1)))

    assert isinstance(found, SearchFound)
    a, b = found.rows
    assert (a.attempts, a.is_shadowed, a.judgements, a.backend) == (2, False, 1, "azure")
    assert a.question.endswith("…") and len(a.question) <= 160
    assert b.question == ""


def test_look_has_both_sides_and_how_they_compare(past: Path):
    found = ask(past, Look(id="3", tenant="acme"))

    assert isinstance(found, SeenFound) and found.seen is not None
    seen = found.seen
    assert [(side.backend, side.is_local, side.is_shadow) for side in seen.sides] == [
        ("azure", False, False),
        ("local", True, True),
    ]
    assert seen.agreement == "other_arguments"
    assert seen.tools == ["find"]
    assert seen.messages[0].text == "Find 3."
    assert seen.sides[0].calls[0].arguments == '{\n  "city": "Rome",\n  "seats": 2\n}'


def test_search_reads_what_it_shows(tmp_path: Path):
    now = time.time()
    write(tmp_path, *(exchange(f"{n:02}", started_at=now - n) for n in range(FOUND + 1)))
    write(tmp_path, exchange("old", started_at=now - 5 * DAY))
    compact(shelf(tmp_path), Retention())
    spoil(archived(tmp_path, day=now - 5 * DAY), "exchange")

    found = ask(tmp_path, Search(span=last(30)))

    assert isinstance(found, SearchFound)
    assert (len(found.rows), found.has_more) == (FOUND, True)


def test_look_reads_the_shadows_of_its_time(tmp_path: Path):
    at = time.time() - 10 * DAY
    late = attempt("azure", find("x"), kind="shadow", started_at=at + 5 * DAY)
    own = attempt("azure", find("x"), kind="shadow", started_at=at + 1)
    write(tmp_path, exchange("a", started_at=at), shadowed("s-a", "a", attempt=own))
    write(tmp_path, *(shadowed(f"s-{id}", id, attempt=late) for id in ("0", "z")))
    compact(shelf(tmp_path), Retention())
    spoil(archived(tmp_path, "shadows", at + 5 * DAY), "shadow")

    found = ask(tmp_path, Look(id="a", tenant="t"))

    assert isinstance(found, SeenFound) and found.seen is not None
    assert [side.is_shadow for side in found.seen.sides] == [False, True]


def test_look_finds_nothing_of_another_tenant(past: Path):
    assert ask(past, Look(id="3", tenant="other")) == SeenFound(seen=None)


def test_look_shows_what_was_said_of_it(tmp_path: Path):
    write(tmp_path, *pair("a", find("Rome"), find("Rome"), right=find("Paris")))

    found = ask(tmp_path, Look(id="req-a", tenant="t"))

    assert isinstance(found, SeenFound) and found.seen is not None
    assert [(one.kind, "Paris" in one.told) for one in found.seen.judgements] == [
        ("demonstration", True)
    ]


def test_long_texts_are_cut(tmp_path: Path):
    write(tmp_path, *pair("a", find("x" * 99_999), find("y"), request=request(HOSTILE * 999)))

    found = ask(tmp_path, Look(id="a", tenant="t"))

    assert len(msgspec.json.encode(found)) < 150_000


# ---------------------------------------------------------------- what cannot be read


def test_empty_record_has_nothing(tmp_path: Path):
    found = ask(tmp_path / "none", Traffic(span=last(1)))

    assert isinstance(found, TrafficFound)
    assert found.shares == found.fallbacks == found.chart.lines == []


def test_archive_that_cannot_be_reached_is_told(past: Path):
    record = RecordSettings(directory=past, archive=ArchiveSettings(url="nonsense://x"))
    order = Order(question=Traffic(span=last(1)), record=record, costs=None, local=[])

    refusal = answer(order)

    assert isinstance(refusal, Refusal) and refusal.kind == "record"
