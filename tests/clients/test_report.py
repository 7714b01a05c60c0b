from __future__ import annotations

from tests.clients import report
from tests.clients.report import FEATURES, STATUSES, Client, Outcome

CLIENT = Client("x", "X", "node", "x.js")
VERSIONS = {"versions": {"x": "1.0"}}
ALL = [
    {"feature": feature, "side": "openai", "ok": True, "detail": "XError"}
    for feature in (*FEATURES, *STATUSES)
]
CANCEL = list(FEATURES).index("cancel")


def outcome(*lines: dict[str, object], complaint: str = "") -> Outcome:
    return Outcome.of(CLIENT, [VERSIONS, *lines], complaint)


def test_client_that_did_everything_is_fine():
    assert outcome(*ALL).ok


def test_feature_that_was_not_tried_is_a_failure():
    assert not outcome(*ALL[:CANCEL], *ALL[CANCEL + 1 :]).ok


def test_feature_that_the_library_lacks_is_told_with_its_reason():
    lacks = {"feature": "cancel", "side": None, "ok": None, "detail": "it has no streams"}

    seen = outcome(*ALL[:CANCEL], lacks, *ALL[CANCEL + 1 :])

    assert seen.ok
    assert seen.cell("cancel") == "–"
    assert "- X, cancel: it has no streams." in report.page([seen], "20")


def test_failure_on_one_side_is_shown():
    failed = {"feature": "plain", "side": "local", "ok": False, "detail": "AssertionError: no"}

    seen = outcome(*ALL, failed)

    assert not seen.ok
    assert seen.cell("plain") == "✓ ✗"
    assert "plain (local): AssertionError: no" in report.progress(seen)


def test_program_that_broke_down_is_a_failure():
    assert not outcome(*ALL, complaint="Traceback …").ok


def test_page_names_versions_and_exceptions():
    page = report.page([outcome(*ALL)], "20")

    assert "| X | x 1.0 |" in page
    assert "- X: 400 `XError`, 401 `XError`" in page
