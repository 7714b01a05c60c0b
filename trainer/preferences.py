"""Preferences that the record holds for free: of two answers to one request, which was right.

    correction     a person said what the answer should have been; what was answered is rejected
    mended         a call failed, and a later call of the same tool in the conversation did not
    invalid_local  a local answer broke its schema, and the cloud's to that request did not

Thumbs (`boolean` feedback) judge one answer alone: for KTO. Both are rendered by the encoder that
renders training rows, and the ids of both sides are compared with TRL's.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterable, Iterator, Sequence
from typing import Literal, NamedTuple, TypeAlias

import msgspec

from proxy.protocol.exchange import CHAT, Answer, Exchange
from proxy.protocol.feedback import Feedback
from proxy.protocol.openai import MalformedRequest, parse_request
from trainer.rows import Label, Row
from trainer.tokens import Encoder

Why: TypeAlias = Literal["correction", "mended", "invalid_local"]


class Pair(NamedTuple):
    """One request, answered twice."""

    chosen: Row
    rejected: Row
    why: Why


class Judged(NamedTuple):
    """One request, answered once, and whether that was good."""

    row: Row
    good: bool


def pairs(exchanges: Sequence[Exchange], feedback: Iterable[Feedback]) -> Iterator[Pair]:
    """All pairs, at most one of each kind an exchange, without those whose sides are equal."""
    chats = [one for one in exchanges if _is_whole(one)]
    corrected = _by_exchange(feedback, "demonstration")
    fixes = _fixes(chats)
    for exchange in chats:
        given = exchange.attempts[-1].answer
        for person in _about(exchange, corrected)[-1:]:
            if isinstance(person.value, Answer):
                yield from _pair(exchange, person.value, given, "correction", person.caller)
        if exchange.id in fixes:
            yield from _pair(exchange, fixes[exchange.id], given, "mended")
        for invalid in _invalid(exchange):
            yield from _pair(exchange, given, invalid, "invalid_local")


def judged(exchanges: Iterable[Exchange], feedback: Iterable[Feedback]) -> Iterator[Judged]:
    """Answers with their thumbs; of several about one answer the last counts."""
    thumbs = _by_exchange(feedback, "boolean")
    for exchange in filter(_is_whole, exchanges):
        for thumb in _about(exchange, thumbs)[-1:]:
            row = _row(exchange, exchange.attempts[-1].answer, thumb.caller)
            if row is not None:
                yield Judged(row, thumb.value is True)


def trainable(rows: Sequence[Row], encoder: Encoder, most: int) -> bool:
    """Whether all can be written in the recipe's format, in at most `most` tokens."""
    for row in rows:
        if len(row.calls) > 1 and not encoder.format(row).many:
            return False
        if len(encoder(row).ids) > most:
            return False
    return True


# ------------------------------------------------------------------ what belongs together


def _by_exchange(feedback: Iterable[Feedback], kind: str) -> dict[tuple[str, str], list[Feedback]]:
    """(tenant, exchange) → feedback of this kind, oldest first."""
    found: defaultdict[tuple[str, str], list[Feedback]] = defaultdict(list)
    for one in sorted(feedback, key=lambda one: one.given_at):
        if one.kind == kind and one.exchange is not None:
            found[one.tenant, one.exchange].append(one)
    return found


def _about(exchange: Exchange, heard: dict[tuple[str, str], list[Feedback]]) -> list[Feedback]:
    """What names the exchange by its own id or by its request's, oldest first."""
    ids = dict.fromkeys((exchange.id, exchange.request_id))
    found = [one for id in ids for one in heard.get((exchange.tenant, id), ())]
    return sorted(found, key=lambda one: one.given_at)


def _fixes(exchanges: Sequence[Exchange]) -> dict[str, Answer]:
    """Exchange whose call failed → the answer whose call of the same tool then did not."""
    calls: dict[tuple[str, str], tuple[Exchange, str]] = {}
    failed: dict[tuple[str, str, str], Exchange] = {}
    fixes: dict[str, Answer] = {}
    for exchange in sorted(exchanges, key=lambda one: one.started_at):
        for outcome in exchange.tool_results:
            made, name = calls.get((exchange.tenant, outcome.tool_call_id), (None, ""))
            if made is None:
                continue
            place = (exchange.tenant, exchange.conversation, name)
            if outcome.outcome == "error":
                failed.setdefault(place, made)
            elif place in failed:
                fixes[failed.pop(place).id] = made.attempts[-1].answer
        answer = exchange.attempts[-1].answer
        if len(answer.tool_calls) == 1:
            (call,) = answer.tool_calls
            calls[exchange.tenant, call.id] = (exchange, call.function.name)
    return fixes


def _invalid(exchange: Exchange) -> Iterator[Answer]:
    """The first local answer that broke its schema, where another backend then gave a sound one."""
    last = exchange.attempts[-1]
    if last.adapter is None and last.answer.tool_calls:
        local = (a.answer for a in exchange.attempts[:-1] if a.adapter and a.outcome == "invalid")
        yield from [answer for answer in local if answer.text or answer.tool_calls][:1]


# ------------------------------------------------------------------ rows


def _is_whole(exchange: Exchange) -> bool:
    return (
        exchange.outcome == "completed" and exchange.endpoint == CHAT and exchange.level == "full"
    )


def _pair(
    exchange: Exchange, chosen: Answer, rejected: Answer, why: Why, by: str = ""
) -> Iterator[Pair]:
    good, bad = _row(exchange, chosen, by), _row(exchange, rejected, by)
    if good is not None and bad is not None and good.id != bad.id:
        yield Pair(good, bad, why)


def _row(exchange: Exchange, answer: Answer, by: str) -> Row | None:
    """The exchange's request with this answer; None for one that cannot be read or says nothing."""
    try:
        request = parse_request(bytes(exchange.request))
    except MalformedRequest:
        return None
    calls = [call.function for call in answer.tool_calls]
    if not calls and not answer.text:
        return None
    return Row(
        messages=list(request.messages),
        functions=list(request.offered),
        calls=calls,
        text="" if calls else answer.text,
        domain=exchange.domain,
        tenant=exchange.tenant,
        label=Label(kind="human", by=by) if by else Label(kind="log"),
        source=f"exchange:{exchange.id}",
        license="own traffic",
        exchange=exchange.id,
        at=exchange.started_at,
        group=exchange.conversation or exchange.id,
    )


class Written(msgspec.Struct, frozen=True):
    """A side of a preference as texts: TRL tokenises them, and preflight compares the ids."""

    prompt: str
    answer: str


def written(encoder: Encoder, row: Row) -> Written:
    """The row as TRL gets it."""
    return Written(encoder.text(row), encoder.written(row))
