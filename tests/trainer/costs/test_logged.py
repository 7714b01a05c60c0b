"""Volume and tokens out of the record."""

from __future__ import annotations

import msgspec
import pytest

pytest.importorskip("scipy", reason="needs the train extra")

from proxy.protocol.exchange import Answer, Attempt, Exchange
from proxy.protocol.openai import Usage
from tests.record.examples import NOW
from trainer.costs.case import Case, Tokens
from trainer.costs.logged import applied, logged
from trainer.errors import CostError


def exchange(model: str | None = "gpt-4o", at: float = NOW, **fields: object) -> Exchange:
    attempt = Attempt(
        kind="primary",
        backend="cloud" if model else "local",
        model=model,
        outcome="completed",
        answer=Answer(text="hi"),
        usage=Usage.of(100, 10),
        cached_tokens=40,
        started_at=at,
        total_s=1,
    )
    whole = Exchange(
        id="chatcmpl-1",
        request_id="req",
        started_at=at,
        total_s=1,
        tenant="default",
        caller="x",
        domain="api",
        route="exact",
        model="gpt-4o",
        stream=False,
        request=msgspec.Raw(b"{}"),
        attempts=[attempt],
        outcome="completed",
        status=200,
    )
    return msgspec.structs.replace(whole, **fields)


def test_calls_tokens_and_the_clouds_share_are_those_of_the_answers():
    day = 24 * 60 * 60
    exchanges = [exchange(), exchange(model=None, at=NOW + day), exchange(outcome="failed")]

    found = logged(exchanges)

    assert found.tokens == Tokens(prompt=100, cached=40, completion=10)
    assert (found.calls, found.clouds_share, found.models) == (2, 0.5, {"gpt-4o": 1})
    assert found.calls_a_month == pytest.approx(2 * 730 / 24)


def test_a_burst_is_taken_for_an_hour():
    assert logged([exchange(), exchange()]).calls_a_month == 2 * 730


def test_a_case_takes_them_over_but_not_a_share_of_which_nothing_is_known():
    cloud, both = logged([exchange()]), logged([exchange(), exchange(model=None)])

    assert applied(Case(), cloud).clouds_share == Case().clouds_share
    assert applied(Case(), both).clouds_share == 0.5
    assert applied(Case(), both).tokens == both.tokens


def test_a_record_without_tokens_is_told():
    with pytest.raises(CostError, match="no completed chat"):
        logged([exchange(attempts=[])])
