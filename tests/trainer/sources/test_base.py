"""Skips: every row that cannot be read is counted, the first ones are told with their place."""

from __future__ import annotations

from trainer.sources.base import Skip, Skips


def test_every_skip_is_counted_and_the_first_few_of_a_reason_are_told():
    skips = Skips()

    for line in range(1, 8):
        skips.add(f"a.jsonl:{line}", "not_json", "no JSON")
    skips.add("b.jsonl:1", "no_answer")

    assert (len(skips), dict(skips.counts)) == (8, {"not_json": 7, "no_answer": 1})
    assert [skip.place for skip in skips.told["not_json"]] == [f"a.jsonl:{n}" for n in range(1, 6)]


def test_a_run_without_skips_has_none():
    assert not Skips()


def test_a_skip_says_where_and_what():
    assert str(Skip("a.jsonl:7", "no_answer")) == "a.jsonl:7: no answer"
    assert str(Skip("a.jsonl:7", "not_json", "cut off")) == "a.jsonl:7: cut off"
