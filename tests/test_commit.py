from __future__ import annotations

import pytest

from proxy.backends.base import Text
from proxy.commit import Commitment
from proxy.errors import BackendUnavailable, InvalidAnswer
from tests.serving import call, finish

GOOD = call("ping", '{"host":"a"}')


@pytest.mark.parametrize(
    ("sent", "invalid", "unavailable"),
    [
        ([], True, True),
        ([Text("a")], True, False),
        ([Text("a"), GOOD], False, False),
        ([GOOD], False, False),
        ([GOOD, Text("a")], False, False),
        ([Text("a"), finish()], False, False),
    ],
)
def test_what_the_client_saw_decides_who_may_follow(sent, invalid, unavailable):
    commitment = Commitment()

    for event in sent:
        commitment.sent(event)

    assert commitment.lets_follow(InvalidAnswer("", "unknown_tool")) is invalid
    assert commitment.lets_follow(BackendUnavailable("")) is unavailable


def test_late_attempt_that_fails_leaves_the_calls_to_the_next():
    commitment = Commitment()

    commitment.sent(Text("a"))

    assert commitment.lets_follow(BackendUnavailable(""), is_late=True)


def test_nobody_adds_to_what_a_cloud_has_said():
    commitment = Commitment()

    commitment.relayed()

    assert not commitment.lets_follow(InvalidAnswer("", "unknown_tool"))
