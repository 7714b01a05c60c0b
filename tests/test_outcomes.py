"""A tool's result is an error when a rule says so, and only then."""

from __future__ import annotations

import msgspec
import pytest

from proxy.outcomes import ErrorRule, OutcomeRules


@pytest.mark.parametrize(
    ("said", "outcome"),
    [
        ('{"error": "no such city"}', "error"),
        ('{"isError": true, "content": []}', "error"),
        ('{"error": null, "rows": []}', "ok"),
        ('{"error": false}', "ok"),
        ("Error: no such city", "ok"),
        ("sunny", "ok"),
        ("", "ok"),
        ("[" * 5000, "ok"),
    ],
)
def test_default_rules(said: str, outcome: str):
    assert OutcomeRules().judge("weather", said) == outcome


@pytest.mark.parametrize(
    ("rule", "said", "outcome"),
    [
        (ErrorRule(regex="(?i)^error"), "Error: no", "error"),
        (ErrorRule(regex="(?i)^error"), "no error", "ok"),
        (
            ErrorRule(path="$.items[0].status", equals="failed"),
            '{"items":[{"status":"failed"}]}',
            "error",
        ),
        (
            ErrorRule(path="$.items[0].status", equals="failed"),
            '{"items":[{"status":"done"}]}',
            "ok",
        ),
        (ErrorRule(path="$.items[3].status"), '{"items":[]}', "ok"),
        (ErrorRule(path="$.code", equals=1), '{"code": true}', "ok"),
        (ErrorRule(tools="other_*", regex="."), "anything", "ok"),
        (ErrorRule(regex=r"\bfail(ed|ure)\b"), "It\nfailed.", "error"),
        (ErrorRule(regex="(?m)^no (?!problem)"), "Oh,\nno way", "error"),
        (ErrorRule(regex="late"), "." * 16_380 + "late", "error"),
        (ErrorRule(regex="late"), "." * 16_384 + "late", "ok"),
    ],
)
def test_rules_of_the_settings(rule: ErrorRule, said: str, outcome: str):
    assert OutcomeRules([rule]).judge("weather", said) == outcome


@pytest.mark.parametrize(
    ("rule", "complaint"),
    [
        ({}, "either `regex` or `path`"),
        ({"regex": "a", "path": "$.a"}, "either `regex` or `path`"),
        ({"path": "error"}, "is no path"),
        ({"regex": "("}, "is no regular expression"),
        ({"regex": r"a\Z"}, "as Rust has them"),
    ],
)
def test_rule_that_makes_no_sense_is_refused(rule: dict[str, str], complaint: str):
    with pytest.raises(msgspec.ValidationError, match=complaint):
        msgspec.convert(rule, ErrorRule)
