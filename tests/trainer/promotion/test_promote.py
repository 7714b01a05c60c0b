"""Promotion as a whole: the champion file and a record on disk."""

from __future__ import annotations

from pathlib import Path

import pytest

pytest.importorskip("gguf", reason="needs the embedded or the train extra")
pytest.importorskip("obstore", reason="needs the record extra")

from proxy.protocol import champions
from proxy.protocol.exchange import Answer
from tests.record.examples import shadowed
from tests.trainer.promotion.traffic import Site, called, site, tried
from trainer.errors import PromotionError
from trainer.promotion.promote import rollback
from trainer.promotion.settings import Limits

OURS, THEIRS = "canary:api-v2", "champion:api-v1"


def grown(at: Site) -> None:
    """Good traffic of a stage, enough to go on."""
    at.later(11)
    at.served(OURS, 12)
    at.served(THEIRS, 12)


def test_a_good_candidate_gets_more_and_more_and_is_the_champion_in_the_end(tmp_path: Path):
    at = site(tmp_path)
    shares = []

    begun = at.promote()
    for _ in range(2):
        shares.append((at.alias.candidate.stage, at.alias.candidate.share, at.alias.champion))
        grown(at)
        at.promote()
    held = at.promote()
    shares.append((at.alias.candidate.stage, at.alias.candidate.share, at.alias.champion))
    at.later(101)
    at.served("", 5, tried("api-v2"))
    done = at.promote()

    assert begun.word == "waiting" and "no traffic yet" in begun.reason
    assert shares == [
        ("canary", 0.25, "api-v1"),
        ("canary", 0.5, "api-v1"),
        ("full", 1.0, "api-v2"),
    ]
    assert held.word == "waiting" and "held" in held.reason
    assert done.word == "promoted"
    assert (at.alias.champion, at.alias.previous, at.alias.candidate) == ("api-v2", "api-v1", None)
    assert at.promote().word == "promoted"


def test_a_candidate_whose_calls_are_invalid_is_taken_back_with_the_reason(tmp_path: Path):
    at = site(tmp_path)
    at.promote()
    at.later(3)
    at.served(THEIRS, 20)
    at.served(OURS, 6, tried("api-v2", "invalid"), tried(None))

    ended = at.promote()

    assert ended.word == "rolled back"
    assert "invalid in 6 of 6 conversations, the champion in 0 of 20" in ended.reason
    assert (at.alias.champion, at.alias.candidate) == ("api-v1", None)
    assert champions.history(at.adapters, "api")[-1].reason == ended.reason


def test_no_candidate_until_the_cooldown_is_over(tmp_path: Path):
    at = site(tmp_path)
    at.promote()
    at.later(3)
    at.served(OURS, 8, tried("api-v2", "invalid"), tried(None))
    at.promote()

    again = at.promote(run="run-2")
    with pytest.raises(
        PromotionError, match=f"no candidate until {at.alias.cooldown_until}.*api-v2 is worse"
    ):
        at.promote("api-v3", run="run-2")
    forced = at.promote("api-v3", run="run-2", force="the bug was in the data")

    assert again.word == "rolled back"
    assert forced.word == "waiting"
    assert at.alias.candidate.adapter == "api-v3"


def test_after_the_cooldown_the_next_one_may_try(tmp_path: Path):
    at = site(tmp_path)
    at.promote()
    at.later(3)
    at.served(OURS, 8, tried("api-v2", "invalid"), tried(None))
    at.promote()
    at.later(1001)

    assert at.promote("api-v3").word == "waiting"


def test_of_two_candidates_one_wins_and_the_other_says_so(tmp_path: Path):
    at = site(tmp_path)
    at.promote()

    with pytest.raises(PromotionError, match=r"api-v2 is being promoted, in stage canary .*run-1"):
        at.promote("api-v3", run="run-2")


def test_a_new_champion_that_fails_while_it_is_held_goes_back(tmp_path: Path):
    at = site(tmp_path)
    at.promote()
    for _ in range(2):
        grown(at)
        at.promote()
    at.later(3)
    at.served(THEIRS, 60)
    at.promote()
    at.later(50)
    at.served("", 30, tried("api-v2", "invalid"), tried(None))

    ended = at.promote()

    assert ended.word == "rolled back"
    assert (at.alias.champion, at.alias.previous, at.alias.candidate) == ("api-v1", None, None)


def test_too_little_traffic_is_no_verdict_and_no_cooldown(tmp_path: Path):
    at = site(tmp_path)
    at.promote()
    at.later(5001)

    ended = at.promote()

    assert (ended.word, at.alias.cooldown_until) == ("rolled back", None)
    assert "too little traffic" in ended.reason
    assert at.promote().word == "rolled back"
    assert at.promote(run="run-2").word == "waiting"


def test_rollback_by_hand_takes_a_candidate_out(tmp_path: Path):
    at = site(tmp_path)
    at.promote()

    ended = rollback(at.registry, "api", "I do not like it", at.settings)

    assert (ended.word, ended.reason) == ("rolled back", "I do not like it")
    assert (at.alias.champion, at.alias.candidate) == ("api-v1", None)
    assert at.alias.cooldown_until is not None


def test_rollback_by_hand_goes_back_to_the_former_champion(tmp_path: Path):
    at = site(tmp_path)
    champions.appoint(at.adapters, "api", "api-v2", "test")

    rollback(at.registry, "api", "wrong", at.settings)

    assert at.alias.champion == "api-v1"
    with pytest.raises(PromotionError, match="no former champion is known"):
        rollback(at.registry, "api", "again", at.settings)


def test_changes_of_other_domains_are_no_conflict(tmp_path: Path):
    at = site(tmp_path)
    promotion = at.promotion()
    seen = []

    def clock() -> float:
        if not seen:
            seen.append(champions.appoint(at.adapters, "chat", "chat-v1", "meanwhile"))
        return at.now

    promotion._clock = clock

    assert promotion.advance().word == "waiting"
    assert at.alias.candidate.adapter == "api-v2"
    assert at.champions.serving["chat"] == "chat-v1"


def test_a_record_that_is_not_there_yet_is_an_empty_one(tmp_path: Path):
    at = site(tmp_path)
    (tmp_path / "record").rmdir()

    begun = at.promote()

    assert (begun.word, begun.figures.candidate) == ("waiting", 0)
    assert "no traffic yet" in begun.reason


# ---------------------------------------------------------------- a domain's first adapter


def beside(at: Site, count: int) -> None:
    """What a cloud answers where there is no champion."""
    at.served("champion:base", count, tried(None, kind="primary"))


def compared(at: Site, differing: int, of: int, side: str = OURS) -> None:
    """The candidate's conversations, of which a cloud's shadow says something else in some."""
    for number, one in enumerate(at.served(side, of, tried("api-v2"))):
        answer = called("b" if number < differing else "a")
        cloud = tried(None, kind="shadow", answer=answer)
        at.wrote(shadowed(f"s-{one.id}", one.id, attempt=cloud))


def test_a_first_adapter_may_disagree_as_often_as_the_gate_allows(tmp_path: Path):
    at = site(tmp_path, champion="", rules=("disagreed",), limits=Limits(disagreed=0.25))
    at.promote()
    at.later(11)
    beside(at, 36)
    compared(at, 4, 12)

    at.promote()

    assert at.alias.candidate.share == 0.5


def test_a_first_adapter_that_disagrees_more_often_goes_back(tmp_path: Path):
    at = site(tmp_path, champion="", limits=Limits(disagreed=0.25))
    at.promote()
    at.later(3)
    beside(at, 8)
    compared(at, 8, 8)

    ended = at.promote()

    assert ended.word == "rolled back"
    assert "disagreed in 8 of 8 conversations, 25% of them are allowed" in ended.reason
    assert at.alias.champion is None


def test_a_first_adapter_whose_answers_others_give_goes_back(tmp_path: Path):
    at = site(tmp_path, champion="")
    at.promote()
    at.later(3)
    beside(at, 20)
    at.served(OURS, 8, tried("api-v2", "failed", answer=Answer()), tried(None))

    assert "rescued in 8 of 8 conversations, 25% of them are allowed" in at.promote().reason


def test_a_first_adapter_beside_the_base_model_is_compared_with_it(tmp_path: Path):
    at = site(tmp_path, champion="", rules=("disagreed",))
    at.promote()
    at.later(11)
    base = tried(None, kind="primary", backend="local", model=None)
    cloud = tried(None, kind="shadow", answer=called("b"))
    for one in at.served("champion:base", 36, base):
        at.wrote(shadowed(f"s-{one.id}", one.id, attempt=cloud))
    compared(at, 12, 12)

    at.promote()

    assert at.alias.candidate.share == 0.5


def test_a_cloud_that_was_away_for_a_moment_is_no_base_model(tmp_path: Path):
    at = site(tmp_path, champion="", limits=Limits(disagreed=0.25))
    at.promote()
    at.later(3)
    beside(at, 8)
    away = tried(None, "failed", kind="primary", model=None, answer=Answer())
    at.served("champion:base", 1, away, outcome="failed")
    compared(at, 8, 8)

    assert "25% of them are allowed" in at.promote().reason


def test_a_first_champion_that_disagrees_while_it_is_held_goes_back(tmp_path: Path):
    at = site(tmp_path, champion="", rules=("disagreed",))
    at.promote()
    for _ in range(2):
        at.later(11)
        compared(at, 0, 12)
        at.promote()
    at.later(3)
    compared(at, 9, 9, side="")

    ended = at.promote()

    assert "disagreed in 9 of 9 conversations, 20% of them are allowed" in ended.reason
    assert (ended.word, at.alias.champion) == ("rolled back", None)


def test_a_first_adapter_has_its_limit_out_of_sight_too(tmp_path: Path):
    at = site(tmp_path, champion="", shadow_pairs=100)
    at.promote()
    at.later(3)
    said = tried("api-v2", kind="shadow", answer=called("b"))
    at.shadowed(9, said, attempts=[tried(None, kind="primary")])

    assert "disagreed in 9 of 9 conversations, 20% of them are allowed" in at.promote().reason


# ---------------------------------------------------------------- out of the clients' sight


def test_a_candidate_is_asked_out_of_sight_before_it_answers_anybody(tmp_path: Path):
    at = site(tmp_path, shadow_pairs=6, shadow_share=0.4)
    waiting = at.promote()
    shown = at.alias.candidate
    at.later(3)
    at.shadowed(4)
    at.shadowed(2, tried("api-v2", kind="shadow", answer=called("b")))
    told = at.promote()

    assert "out of the clients' sight: 6 more conversations" in waiting.reason
    assert (shown.stage, shown.share) == ("shadow", 0.4)
    assert "no traffic yet" in told.reason
    assert (at.alias.candidate.stage, at.alias.candidate.share) == ("canary", 0.25)


def test_what_was_said_out_of_sight_is_told(tmp_path: Path):
    at = site(tmp_path, shadow_pairs=6)
    at.promote()
    at.later(3)
    at.shadowed(2)
    at.shadowed(1, tried("api-v2", kind="shadow", answer=called("b")))

    figures = at.promote().figures

    assert (figures.stage, figures.candidate, figures.champion) == ("shadow", 3, 3)
    assert "it said the same as who answered in 2 of 3 requests" in figures.notes


def test_a_candidate_that_fails_out_of_sight_never_answers_a_client(tmp_path: Path):
    at = site(tmp_path, shadow_pairs=100)
    at.promote()
    at.later(3)
    at.shadowed(20, tried("api-v2", "invalid", kind="shadow"))

    ended = at.promote()

    assert ended.word == "rolled back"
    assert "invalid in 20 of 20 conversations, the champion in 0 of 20" in ended.reason
    assert (at.alias.champion, at.alias.candidate) == ("api-v1", None)
    changes = champions.history(at.adapters, "api")
    stages = {one.after.candidate.stage for one in changes if one.after and one.after.candidate}
    assert stages == {"loading", "shadow"}


def test_pairs_that_do_not_come_keep_nobody_waiting(tmp_path: Path):
    at = site(tmp_path, shadow_pairs=6, shadow_s=600)
    at.promote()
    at.later(601)
    at.promote()

    assert at.alias.candidate.stage == "canary"
    reasons = [one.reason for one in champions.history(at.adapters, "api")]
    assert "nothing was found in 0 conversations out of the clients' sight" in reasons
