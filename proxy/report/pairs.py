"""Pairs: what two backends said to the same request, one of them to the client.

A side is a backend alone: what its own attempts came to, without another backend's rescue. A pair
is left out where one side was not asked, or where the client or the proxy cut it short.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterator
from typing import Literal, TypeAlias

import msgspec

from proxy.protocol import toolcheck
from proxy.protocol.agreement import Agreement, compare
from proxy.protocol.equality import Strings
from proxy.protocol.exchange import Answer, Attempt, Exchange
from proxy.protocol.feedback import Feedback
from proxy.protocol.openai import ChatRequest, MalformedRequest, parse_request
from proxy.protocol.prices import PriceTable, price_at
from proxy.protocol.shadowed import Shadowed

LeftOut: TypeAlias = Literal["not_kept", "cut_short", "other_backends"]
"""`not_kept`: the request or an answer was not recorded in full."""
_CUT = ("client_aborted", "upstream_aborted")


class Side(msgspec.Struct, frozen=True, kw_only=True):
    """What one backend did with one request."""

    backend: str
    adapter: str | None
    model: str | None
    answered: bool
    """Whether there is a whole answer, valid or not."""
    valid: bool
    """Whether its calls are what the request's schemas allow; false where there is no answer."""
    called: bool
    total_s: float
    """Seconds from the start of its first attempt to the end of its last."""
    first_byte_s: float | None
    cost_usd: float | None
    """By the prices of the day; None where no price is known."""
    answer: Answer


class Pair(msgspec.Struct, frozen=True, kw_only=True):
    """Two sides of one request."""

    exchange: str
    conversation: str
    domain: str
    tenant: str
    tool: str
    """What the baseline called, or else the candidate; several joined by ` + `, empty for none."""
    started_at: float
    tools_offered: bool
    baseline: Side
    candidate: Side
    agreement: Agreement
    """Of the candidate's answer with the baseline's."""
    right: tuple[bool, bool] | None
    """Whether the baseline and the candidate agree with the demonstration; None without one."""
    question: str


class Contest(msgspec.Struct, frozen=True, kw_only=True):
    """Who is compared with whom, each a backend's name or an adapter's id, and how."""

    baseline: str
    candidate: str
    strings: Strings = "exact"


class Paired(msgspec.Struct, frozen=True):
    """Records that belong together."""

    exchange: Exchange
    shadow: Shadowed
    demonstration: Feedback | None = None


def pairs(
    records: Iterator[Paired], contest: Contest, prices: PriceTable, left_out: Counter[LeftOut]
) -> Iterator[Pair]:
    """The pairs of a contest; those that cannot be compared are counted by reason."""
    for paired in records:
        found = _pair(paired, contest, prices)
        if isinstance(found, Pair):
            yield found
        else:
            left_out[found] += 1


def named(name: str) -> Callable[[Attempt], bool]:
    """Whether an attempt is of the backend, or of the adapter, with this name."""
    return lambda attempt: name in (attempt.backend, attempt.adapter)


def _pair(paired: Paired, contest: Contest, prices: PriceTable) -> Pair | LeftOut:
    exchange = paired.exchange
    request = _request(exchange)
    if request is None:
        return "not_kept"
    attempts = [*exchange.attempts, paired.shadow.attempt]
    of_baseline = list(filter(named(contest.baseline), attempts))
    of_candidate = list(filter(named(contest.candidate), attempts))
    if not of_baseline or not of_candidate or of_baseline[-1] is of_candidate[-1]:
        return "other_backends"
    if any(side[-1].outcome in _CUT for side in (of_baseline, of_candidate)):
        return "cut_short"
    baseline = _side(of_baseline, request, prices)
    candidate = _side(of_candidate, request, prices)
    if not baseline.answered and not candidate.answered:
        return "not_kept"
    return _compared(paired, request, baseline, candidate, contest.strings)


def _request(exchange: Exchange) -> ChatRequest | None:
    """None for what was not kept, and for what is no chat."""
    try:
        return parse_request(bytes(exchange.request)) if exchange.level == "full" else None
    except MalformedRequest:
        return None


def _side(attempts: list[Attempt], request: ChatRequest, prices: PriceTable) -> Side:
    last = attempts[-1]
    said = bool(last.answer.tool_calls or last.answer.text or last.answer.refusal)
    answered = last.outcome in ("completed", "invalid") and said
    began = min(attempt.started_at for attempt in attempts)
    costs = [cost for attempt in attempts if (cost := _cost(attempt, prices)) is not None]
    return Side(
        backend=last.backend,
        adapter=last.adapter,
        model=last.model,
        answered=answered,
        valid=answered and last.outcome == "completed" and _is_valid(last.answer, request),
        called=bool(last.answer.tool_calls),
        total_s=max(attempt.started_at + attempt.total_s for attempt in attempts) - began,
        first_byte_s=last.first_byte_s,
        cost_usd=sum(costs) if costs else None,
        answer=last.answer,
    )


def _cost(attempt: Attempt, prices: PriceTable) -> float | None:
    """As recorded; where no price was known then, by a price that is known now."""
    if attempt.cost_usd is not None or attempt.usage is None or attempt.model is None:
        return attempt.cost_usd
    price = price_at(prices, attempt.model, attempt.started_at)
    return price.cost(attempt.usage, attempt.cached_tokens) if price else None


def _is_valid(answer: Answer, request: ChatRequest) -> bool:
    try:
        return toolcheck.check(answer.tool_calls, request) is None
    except ValueError:
        # A schema that cannot be compiled allows and forbids nothing.
        return True


def _compared(
    paired: Paired, request: ChatRequest, baseline: Side, candidate: Side, strings: Strings
) -> Pair:
    exchange, offered = paired.exchange, bool(request.offered or request.functions)
    return Pair(
        exchange=exchange.id,
        conversation=exchange.conversation or exchange.id,
        domain=exchange.domain,
        tenant=exchange.tenant,
        tool=_tools(baseline.answer) or _tools(candidate.answer),
        started_at=exchange.started_at,
        tools_offered=offered,
        baseline=baseline,
        candidate=candidate,
        agreement=compare(candidate.answer, baseline.answer, strings, tools_offered=offered),
        right=_right(paired.demonstration, baseline, candidate, strings, offered),
        question=next((m.text for m in reversed(request.messages) if m.role == "user"), ""),
    )


def _tools(answer: Answer) -> str:
    return " + ".join(sorted({call.function.name for call in answer.tool_calls}))


def _right(
    demonstration: Feedback | None,
    baseline: Side,
    candidate: Side,
    strings: Strings,
    tools_offered: bool,
) -> tuple[bool, bool] | None:
    if demonstration is None or not isinstance(demonstration.value, Answer):
        return None
    reference = demonstration.value
    found = [
        compare(side.answer, reference, strings, tools_offered=tools_offered)
        for side in (baseline, candidate)
    ]
    if any(one.kind == "not_comparable" for one in found) and not reference.tool_calls:
        # Two texts that are not the same: rules cannot say whether one is right.
        return None
    return (
        baseline.answered and found[0].agrees,
        candidate.answered and found[1].agrees,
    )
