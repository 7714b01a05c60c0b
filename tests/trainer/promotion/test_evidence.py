"""The record as requests of two sides."""

from __future__ import annotations

from pathlib import Path

import pytest

pytest.importorskip("gguf", reason="needs the embedded or the train extra")
pytest.importorskip("obstore", reason="needs the record extra")

from proxy.record.compact import Retention, compact
from tests.record.examples import NOW, feedback, result, shadowed, shelf
from tests.trainer.promotion.traffic import Site, called, site, tried
from trainer.promotion.evidence import BASE, Watched
from trainer.promotion.rules import Request

OURS, THEIRS = "canary:api-v2", "champion:api-v1"
WATCHED = Watched("api", "api-v2", "api-v1", NOW)


def seen(at: Site, watched: Watched = WATCHED) -> list[Request]:
    return at.record.requests(watched)


def seen_one(at: Site) -> Request:
    (one,) = seen(at)
    return one


def test_requests_are_on_the_side_that_chance_put_them_on(tmp_path: Path):
    at = site(tmp_path)
    at.served(OURS, 1)
    at.served(THEIRS, 1)
    at.served("canary:api-v9", 1)
    at.served("champion:api-v9", 1)
    at.served("split:azure", 1)
    at.served(OURS, 1, domain="chat")

    assert [(one.side, one.is_drawn) for one in seen(at)] == [
        ("candidate", True),
        ("champion", True),
    ]


def test_where_nobody_is_beside_him_the_first_attempt_tells_whose_it_was(tmp_path: Path):
    at = site(tmp_path)
    at.served("", 1, tried("api-v1"))
    at.served("", 1, tried("api-v2", "invalid"), tried(None))
    at.served("", 1, tried(None))

    assert [(one.side, one.is_drawn) for one in seen(at)] == [
        ("champion", False),
        ("candidate", False),
    ]


def test_base_model_is_a_champion_too(tmp_path: Path):
    at = site(tmp_path)
    at.served("champion:base", 1, tried(None, kind="primary", backend="local", model=None))

    (one,) = seen(at, WATCHED._replace(champion=BASE))

    assert (one.side, one.rescued) == ("champion", False)


def test_cached_answers_and_clients_that_left_count_for_nobody(tmp_path: Path):
    at = site(tmp_path)
    at.served(OURS, 1, tried("api-v2", backend="cache"))
    at.served(OURS, 1, outcome="client_aborted")
    at.served(OURS, 1, endpoint="/embeddings")

    assert seen(at) == []


@pytest.mark.parametrize(
    ("attempts", "invalid", "rescued"),
    [
        ([tried("api-v2")], False, False),
        ([tried("api-v2", "invalid"), tried("api-v2", kind="repair")], True, False),
        ([tried("api-v2", "invalid"), tried(None)], True, True),
        ([tried("api-v2", "failed"), tried(None)], False, True),
        ([tried("api-v2", "invalid"), tried("api-v1", kind="fallback")], True, True),
        ([tried(None)], None, True),
    ],
)
def test_who_answered_and_whether_it_was_valid(tmp_path: Path, attempts, invalid, rescued):
    at = site(tmp_path)
    at.served(OURS, 1, *attempts)

    assert (seen_one(at).invalid, seen_one(at).rescued) == (invalid, rescued)


@pytest.mark.parametrize(("host", "disagreed"), [("a", False), ("b", True)])
def test_cloud_s_shadow_says_whether_they_agree(tmp_path: Path, host, disagreed):
    at = site(tmp_path)
    (one,) = at.served(OURS, 1)
    cloud = tried(None, kind="shadow", answer=called(host))
    at.wrote(shadowed("s", one.id, attempt=cloud))

    assert seen_one(at).disagreed is disagreed


def test_fallback_says_so_too_and_without_a_cloud_nobody_does(tmp_path: Path):
    at = site(tmp_path)
    at.served(OURS, 1, tried("api-v2", "invalid"), tried(None, answer=called("b")))
    at.served(OURS, 1)

    assert [one.disagreed for one in seen(at)] == [True, None]


def test_the_latest_thumb_counts_of_exchange_or_conversation(tmp_path: Path):
    at = site(tmp_path)
    first, second, _ = at.served(OURS, 3)
    at.wrote(
        feedback("f1", first.id, value=True),
        feedback("f2", first.id, value=False, given_at=NOW + 9),
        feedback("f3", conversation=second.conversation, value=True),
    )

    assert [one.disliked for one in seen(at)] == [True, False, None]


def test_what_the_tools_told_in_the_next_request(tmp_path: Path):
    at = site(tmp_path)
    (first,) = at.served(OURS, 1)
    at.served(OURS, 1, conversation=first.conversation, tool_results=[result("call-1", "error")])

    assert seen(at)[0].tool_failed is True


def test_callers_are_the_unit_where_chance_assigns_callers(tmp_path: Path):
    at = site(tmp_path)
    at.served(OURS, 2)

    assert len({one.unit for one in seen(at)}) == 2
    assert len({one.unit for one in seen(at, WATCHED._replace(by_caller=True))}) == 1


def test_only_what_came_since_is_read_from_segments_and_archive(tmp_path: Path):
    at = site(tmp_path)
    at.served(THEIRS, 2)
    at.later(100)
    at.served(OURS, 3)
    late = WATCHED._replace(since=NOW + 50)
    before = seen(at, late)
    compact(shelf(tmp_path / "record"), Retention())

    assert len(before) == 3
    assert seen(at, late) == before
    assert len(seen(at)) == 5


# ---------------------------------------------------------------- out of the client's sight


def test_a_pair_is_what_was_answered_and_what_the_candidate_said(tmp_path: Path):
    at = site(tmp_path)
    cloud = tried(None, kind="shadow", answer=called("b"))
    same = at.shadowed(1)
    at.shadowed(1, tried("api-v2", "invalid", kind="shadow", answer=called("b")), cloud)

    first, second = at.record.pairs(WATCHED)

    assert (first.candidate.unit, first.champion.unit) == (f"t\0{same[0].conversation}",) * 2
    assert (first.same, first.candidate.disagreed, first.champion.disagreed) == (True, None, None)
    assert (second.candidate.invalid, second.champion.invalid) == (True, False)
    assert (second.same, second.candidate.disagreed, second.champion.disagreed) == (
        False,
        False,
        True,
    )


def test_where_a_cloud_answers_nobody_knows_how_often_the_champion_disagrees(tmp_path: Path):
    at = site(tmp_path)
    at.shadowed(1, attempts=[tried(None, kind="primary")])

    (pair,) = at.record.pairs(Watched("api", "api-v2", BASE, NOW))

    assert (pair.candidate.disagreed, pair.champion.disagreed) == (False, None)
    assert (pair.same, pair.champion.invalid) == (True, False)


def test_shadows_of_others_and_those_without_an_answer_are_no_pairs(tmp_path: Path):
    at = site(tmp_path)
    at.shadowed(1, tried("api-v9", kind="shadow"))
    at.shadowed(1, tried(None, kind="shadow"))
    at.shadowed(1, tried("api-v2", "failed", kind="shadow"))
    at.served("", 1)

    assert at.record.pairs(WATCHED) == []
