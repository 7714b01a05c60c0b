"""What is said of an exchange, under either of its two names."""

from __future__ import annotations

from pathlib import Path

import msgspec
import pytest

from proxy.protocol.sealing import Keyring
from proxy.record import query
from proxy.record.compact import Retention, compact
from proxy.report import reading
from proxy.report.ab import Scope
from proxy.report.pairs import Paired
from proxy.report.trials import Assigned
from tests.record.examples import (
    DAY,
    NOW,
    archived,
    exchange,
    feedback,
    shadowed,
    shelf,
    spoil,
    write,
)
from tests.report.examples import find

SCOPE = Scope(since=0.0, until=NOW + 1)
KEYRING = Keyring({"k": b"k" * 32}, "k")


def shown(id: str, about: str, city: str, after: float):
    said = {"kind": "demonstration", "value": find(city), "given_at": NOW + after}
    return feedback(id, about, **said)


def paired(directory: Path, keyring: Keyring | None = None) -> list[Paired]:
    there = shelf(directory, keyring=keyring)
    with query.opened(there) as connection:
        return list(reading.paired(connection, there.rows, SCOPE))


def assigned(directory: Path) -> list[Assigned]:
    with query.opened(shelf(directory)) as connection:
        return list(reading.assigned(connection, SCOPE))


@pytest.mark.parametrize("keyring", [None, KEYRING], ids=["plain", "encrypted"])
@pytest.mark.parametrize(
    ("by_id", "by_request", "last"),
    [
        ([1], [], "id 1"),
        ([], [1], "request 1"),
        ([2], [1], "id 2"),
        ([1], [2], "request 2"),
        ([1, 3], [2], "id 3"),
        ([], [], None),
    ],
)
def test_the_last_demonstration_counts_whichever_name_it_uses(
    tmp_path: Path, by_id: list[int], by_request: list[int], last: str | None, keyring
):
    judged = [shown(f"i{n}", "a", f"id {n}", n) for n in by_id]
    judged += [shown(f"r{n}", "req-a", f"request {n}", n) for n in by_request]
    write(tmp_path, exchange("a"), shadowed("s", "a"), *judged, keyring=keyring)

    (pair,) = paired(tmp_path, keyring)

    found = pair.demonstration
    assert (found and found.value) == (None if last is None else find(last))


def test_another_tenant_s_word_does_not_count(tmp_path: Path):
    theirs = shown("f", "a", "Oslo", 1)
    write(tmp_path, exchange("a", tenant="other"), shadowed("s", "a", tenant="other"), theirs)

    (pair,) = paired(tmp_path)

    assert pair.demonstration is None


@pytest.mark.parametrize(("first", "second", "liked"), [(1, 2, 0.0), (2, 1, 1.0)])
def test_an_assigned_request_that_was_judged_twice_counts_once(
    tmp_path: Path, first: int, second: int, liked: float
):
    write(
        tmp_path,
        exchange("a", assigned="split:azure"),
        feedback("by-id", "a", value=True, given_at=NOW + first),
        feedback("by-request", "req-a", value=False, given_at=NOW + second),
    )

    (one,) = assigned(tmp_path)

    assert one.liked == liked


def test_shadows_of_other_domains_are_not_read(tmp_path: Path):
    write(tmp_path, exchange("a"), shadowed("s", "a"))
    write(tmp_path, exchange("b", domain="other"), shadowed("t", "b", domain="other"))
    compact(shelf(tmp_path), Retention())
    (other,) = (tmp_path / "archive/shadows").rglob("domain=other/*.parquet")
    spoil(other)

    with query.opened(shelf(tmp_path)) as connection:
        scope = msgspec.structs.replace(SCOPE, domain="api")
        (pair,) = reading.paired(connection, shelf(tmp_path).rows, scope)

    assert pair.shadow.id == "s"


def test_shadows_of_days_before_are_not_read(tmp_path: Path):
    write(tmp_path, exchange("a", started_at=NOW - 3 * DAY), shadowed("s", "a"))
    late = msgspec.structs.replace(shadowed("t", "b").attempt, started_at=NOW + 3 * DAY)
    write(tmp_path, exchange("b", started_at=NOW + 3 * DAY), shadowed("t", "b", attempt=late))
    compact(shelf(tmp_path), Retention())
    spoil(archived(tmp_path, "shadows"), "shadow")

    with query.opened(shelf(tmp_path)) as connection:
        scope = msgspec.structs.replace(SCOPE, since=NOW + 2 * DAY, until=NOW + 4 * DAY)
        (pair,) = reading.paired(connection, shelf(tmp_path).rows, scope)

    assert pair.shadow.id == "t"


def test_exchanges_that_nobody_else_answered_are_not_held_in_memory(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    monkeypatch.setitem(query._CONFIG, "memory_limit", "60MB")
    words = msgspec.Raw(msgspec.json.encode({"messages": ["word " * 8000]}))
    alone = (exchange(f"e{number}", request=words) for number in range(3000))
    write(tmp_path, exchange("a"), shadowed("s", "a"), *alone)

    assert [pair.exchange.id for pair in paired(tmp_path)] == ["a"]
