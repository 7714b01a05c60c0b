"""What the record says of single exchanges: found, and looked at; runs in the reader's process."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence

import duckdb
import msgspec
import pyarrow as pa

from proxy.dashboard.questions import (
    FOUND,
    LONGEST,
    Call,
    Judgement,
    Row,
    Said,
    Search,
    SearchFound,
    Seen,
    SeenFound,
    Side,
)
from proxy.protocol.agreement import compare
from proxy.protocol.exchange import Answer, Attempt, Exchange
from proxy.protocol.feedback import Feedback
from proxy.protocol.openai import ChatRequest, MalformedRequest, Message, ToolCall, parse_request
from proxy.protocol.parquet import Rows
from proxy.protocol.shadowed import Shadowed
from proxy.record import query

_MESSAGES = 60
"""The last messages of a conversation that are shown."""
_CUT = 160
"""Letters of the question in a list."""
_BESIDE = 50
"""Shadows, and statements, of one exchange that are shown."""
_ROUNDING = 0.001
"""Seconds by which a time as a number may miss the one in the record."""
_TOOLS = 64 * 1024
"""Bytes of tools that a correction is checked against."""

_SEARCH = f"""
SELECT e.id, e.tenant, epoch(e.started_at) AS at FROM exchanges e
WHERE e.started_at >= to_timestamp($since) AND e.started_at < to_timestamp($until)
    AND ($domain = '' OR e.domain = $domain) AND ($backend = '' OR e.backend = $backend)
    AND ($tenant = '' OR e.tenant = $tenant) AND ($outcome = '' OR e.outcome = $outcome)
    AND ($text = '' OR e.id = $text OR e.request_id = $text OR e.conversation = $text
        OR contains(lower(e.exchange), lower($text)))
ORDER BY e.started_at DESC, e.id LIMIT {FOUND + 1} OFFSET $skipped
"""  # noqa: S608  # constants only

_FOUND = """
SELECT e.exchange, e.sealed, s.shadows, f.judgements
FROM exchanges e
LEFT JOIN (SELECT tenant, exchange_id, count(*) AS shadows FROM shadows
    WHERE exchange_id IN (SELECT unnest($ids)) GROUP BY ALL) s
    ON s.tenant = e.tenant AND s.exchange_id = e.id
LEFT JOIN (SELECT tenant, exchange_id, count(*) AS judgements FROM feedback
    WHERE exchange_id IN (SELECT unnest($ids)) GROUP BY ALL) f
    ON f.tenant = e.tenant AND f.exchange_id = e.id
WHERE e.id IN (SELECT unnest($ids))
    AND e.started_at >= to_timestamp($first) AND e.started_at < to_timestamp($last)
ORDER BY e.started_at DESC, e.id
"""
"""What is told of those that were found: their times say where they lie, so that little else is
read of the record's largest column."""

_SHADOWS = f"""
SELECT shadow, sealed FROM shadows WHERE tenant = $tenant AND exchange_id = $id
    AND started_at < to_timestamp($at + {24 * 60 * 60})
ORDER BY started_at LIMIT {_BESIDE}
"""  # noqa: S608  # constants only
"""Shadows are asked within minutes: what waits for that is in memory."""
_FEEDBACK = f"""
SELECT feedback, sealed FROM feedback
WHERE tenant = $tenant AND (exchange_id IN ($id, $request) OR conversation = $conversation)
ORDER BY given_at DESC LIMIT {_BESIDE}
"""  # noqa: S608  # constants only


# ---------------------------------------------------------------- a list


def search(connection: duckdb.DuckDBPyConnection, rows: Rows, wanted: Search) -> SearchFound:
    """The exchanges that fit, the last ones first."""
    values = {
        "since": wanted.span.since,
        "until": wanted.span.until,
        "skipped": wanted.page * FOUND,
        **{name: getattr(wanted, name) for name in ("text", "domain", "backend", "tenant")},
        "outcome": wanted.outcome,
    }
    chosen = query.typed(connection, _SEARCH, values, _Chosen)
    found = list(_told(connection, rows, chosen)) if chosen else []
    return SearchFound(rows=found[:FOUND], has_more=len(found) > FOUND)


class _Chosen(msgspec.Struct):
    id: str
    tenant: str
    at: float


def _told(
    connection: duckdb.DuckDBPyConnection, rows: Rows, chosen: Sequence[_Chosen]
) -> Iterator[Row]:
    """The rows of those that were chosen, in their order."""
    known = {(one.tenant, one.id) for one in chosen}
    values = {
        "ids": [one.id for one in chosen],
        "first": chosen[-1].at - _ROUNDING,
        "last": chosen[0].at + _ROUNDING,
    }
    for batch in _batches(connection, _FOUND, values):
        counts = (batch.column(name).to_pylist() for name in ("shadows", "judgements"))
        for exchange, shadows, judgements in zip(rows.exchanges(batch), *counts, strict=True):
            if (exchange.tenant, exchange.id) in known:
                yield _row(exchange, shadows, judgements)


def _row(one: Exchange, shadows: int | None, judgements: int | None) -> Row:
    last = one.attempts[-1] if one.attempts else None
    return Row(
        id=one.id,
        started_at=one.started_at,
        tenant=one.tenant,
        domain=one.domain,
        backend=last.backend if last else "",
        adapter=(last.adapter or "") if last else "",
        outcome=one.outcome,
        total_s=one.total_s,
        attempts=len(one.attempts),
        is_shadowed=bool(shadows),
        judgements=judgements or 0,
        question=_question(_request(one)),
    )


def _question(request: ChatRequest | None) -> str:
    said = (m.text for m in reversed(request.messages) if m.role == "user") if request else ()
    text = " ".join(next(iter(said), "")[: 4 * _CUT].split())
    return text if len(text) <= _CUT else text[: _CUT - 1] + "…"


def _request(one: Exchange) -> ChatRequest | None:
    """None for what was not kept, and for what is no chat."""
    try:
        return parse_request(bytes(one.request)) if one.level == "full" else None
    except MalformedRequest:
        return None


# ---------------------------------------------------------------- one of them


def look(
    connection: duckdb.DuckDBPyConnection, rows: Rows, exchange: Exchange, local: Sequence[str]
) -> SeenFound:
    """One exchange with all that belongs to it."""
    values: dict[str, object] = {"tenant": exchange.tenant, "id": exchange.id}
    at = {"at": exchange.started_at}
    shadows = [
        one for batch in _batches(connection, _SHADOWS, values | at) for one in rows.shadows(batch)
    ]
    values |= {"request": exchange.request_id, "conversation": exchange.conversation or exchange.id}
    said = [
        one for batch in _batches(connection, _FEEDBACK, values) for one in rows.feedback(batch)
    ]
    return SeenFound(seen=_seen(exchange, shadows, said, local))


def _batches(
    connection: duckdb.DuckDBPyConnection, sql: str, values: Mapping[str, object]
) -> Iterator[pa.RecordBatch]:
    return query.run(connection, sql, values).record_batches()


def _seen(
    one: Exchange, shadows: Sequence[Shadowed], said: Sequence[Feedback], local: Sequence[str]
) -> Seen:
    request = _request(one)
    attempts = [*one.attempts, *(shadow.attempt for shadow in shadows)]
    return Seen(
        id=one.id,
        request_id=one.request_id,
        tenant=one.tenant,
        caller=one.caller,
        domain=one.domain,
        model=one.model,
        conversation=one.conversation,
        started_at=one.started_at,
        total_s=one.total_s,
        outcome=one.outcome,
        status=one.status,
        is_kept=request is not None,
        messages=[_said(m) for m in request.messages[-_MESSAGES:]] if request else [],
        tools=[_cut(function.name) for function in request.offered] if request else [],
        tools_json=_tools(request),
        sides=[_side(attempt, local) for attempt in attempts],
        agreement=_agreement(attempts, request, local),
        judgements=[_judgement(feedback) for feedback in said],
    )


def _said(message: Message) -> Said:
    made = [call.function for call in message.tool_calls or () if call.function is not None]
    calls = [f"{function.name}({function.arguments})" for function in made]
    parts = [message.text, message.refusal or "", *calls]
    if isinstance(message.content, list):
        parts += [f"[{part.type}]" for part in message.content if part.type != "text"]
    return Said(role=message.role, text=_cut("\n".join(filter(None, parts))))


def _tools(request: ChatRequest | None) -> str:
    tools = msgspec.json.encode(request.tools or []) if request else b""
    return tools.decode() if len(tools) <= _TOOLS else ""


def _side(one: Attempt, local: Sequence[str]) -> Side:
    return Side(
        backend=one.backend,
        adapter=one.adapter or "",
        is_local=one.backend in local,
        is_shadow=one.kind == "shadow",
        outcome=one.outcome,
        reason=one.reason or "",
        text=_cut(one.answer.text or one.answer.refusal),
        calls=[_call(call) for call in one.answer.tool_calls[:_BESIDE]],
        first_byte_s=one.first_byte_s,
        total_s=one.total_s,
        cost_usd=one.cost_usd,
        tokens=one.usage.total_tokens if one.usage else None,
    )


def _call(call: ToolCall) -> Call:
    return Call(name=_cut(call.function.name), arguments=_cut(_indented(call.function.arguments)))


def _indented(text: str) -> str:
    try:
        return msgspec.json.format(text, indent=2)
    except (msgspec.DecodeError, RecursionError):
        return text


def _agreement(
    attempts: Sequence[Attempt], request: ChatRequest | None, local: Sequence[str]
) -> str:
    """How the last answer of home compares with the last one of a cloud."""
    home = _answer([one for one in attempts if one.backend in local])
    cloud = _answer([one for one in attempts if one.backend not in local])
    if home is None or cloud is None or request is None:
        return ""
    return compare(home, cloud, tools_offered=bool(request.offered or request.functions)).kind


def _answer(attempts: Sequence[Attempt]) -> Answer | None:
    return attempts[-1].answer if attempts else None


def _judgement(one: Feedback) -> Judgement:
    match one.value:
        case Answer(text=text, tool_calls=calls):
            made = [f"{call.function.name}({call.function.arguments})" for call in calls]
            told = "\n".join(filter(None, [text, *made]))
        case _:
            told = str(one.value)
    name = f"{one.name}: " if one.name else ""
    return Judgement(
        given_at=one.given_at, caller=one.caller, kind=one.kind, told=_cut(name + told)
    )


def _cut(text: str) -> str:
    return text if len(text) <= LONGEST else text[:LONGEST] + " … (cut)"
