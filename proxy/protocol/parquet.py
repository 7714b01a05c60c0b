"""Parquet files: how the record lies in the archive, and what its columns are.

    exchanges/date=2026-01-30/domain=api/<job>.parquet
    feedback/date=2026-01-30/<job>.parquet
    shadows/date=2026-01-30/domain=api/<job>.parquet

Those that were joined stay a while and do not count (proxy.record.markers). Each row has columns to
search by, and in `exchange` (`feedback`, `shadow`) the whole record as JSON; in an encrypted record
that column is empty, and `sealed` has it: zstd, then sealing. Date and domain are columns too.
Needs PyArrow (extra `record`).
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from datetime import UTC, date, datetime
from typing import TypeVar
from urllib.parse import quote

import msgspec
import pyarrow as pa
import zstandard

from proxy.protocol.exchange import Answer, Attempt, Exchange, NewerRecord
from proxy.protocol.feedback import Feedback
from proxy.protocol.sealing import Keyring, SealError
from proxy.protocol.segments import Record, unpacked
from proxy.protocol.shadowed import Shadowed

EXCHANGES, FEEDBACK, SHADOWS = "exchanges", "feedback", "shadows"
SUFFIX = ".parquet"

_TIME = pa.timestamp("us", tz="UTC")
_CALLS = pa.list_(pa.struct({"id": pa.string(), "name": pa.string()}))
_ATTEMPT = {
    "kind": pa.string(),
    "backend": pa.string(),
    "adapter": pa.string(),
    "model": pa.string(),
    "outcome": pa.string(),
    "reason": pa.string(),
    "prompt_tokens": pa.int64(),
    "completion_tokens": pa.int64(),
    "usage_source": pa.string(),
    "cost_usd": pa.float64(),
    "first_byte_s": pa.float64(),
    "total_s": pa.float64(),
}
_LABEL = b"headrace parquet"

EXCHANGE_SCHEMA = pa.schema(
    {
        "id": pa.string(),
        "request_id": pa.string(),
        "started_at": _TIME,
        "date": pa.date32(),
        "tenant": pa.string(),
        "caller": pa.string(),
        "conversation": pa.string(),
        "domain": pa.string(),
        "route": pa.string(),
        "model": pa.string(),
        "stream": pa.bool_(),
        "level": pa.string(),
        "outcome": pa.string(),
        "status": pa.int32(),
        "retries": pa.int32(),
        "total_s": pa.float64(),
        "first_byte_s": pa.float64(),
        "backend": pa.string(),
        "adapter": pa.string(),
        "prompt_tokens": pa.int64(),
        "completion_tokens": pa.int64(),
        "cost_usd": pa.float64(),
        "tools_fingerprint": pa.string(),
        "attempts": pa.list_(pa.struct(_ATTEMPT)),
        "calls": _CALLS,
        "tool_results": pa.list_(
            pa.struct({"tool_call_id": pa.string(), "name": pa.string(), "outcome": pa.string()})
        ),
        "assigned": pa.string(),
        "exchange": pa.string(),
        "sealed": pa.binary(),
    }
)

FEEDBACK_SCHEMA = pa.schema(
    {
        "id": pa.string(),
        "given_at": _TIME,
        "date": pa.date32(),
        "tenant": pa.string(),
        "caller": pa.string(),
        "exchange_id": pa.string(),
        "conversation": pa.string(),
        "name": pa.string(),
        "kind": pa.string(),
        "number": pa.float64(),
        "feedback": pa.string(),
        "sealed": pa.binary(),
    }
)
"""`number` is the value of kinds boolean (0 or 1) and float."""

SHADOW_SCHEMA = pa.schema(
    {
        "id": pa.string(),
        "exchange_id": pa.string(),
        "started_at": _TIME,
        "date": pa.date32(),
        "tenant": pa.string(),
        "caller": pa.string(),
        "conversation": pa.string(),
        "domain": pa.string(),
        **_ATTEMPT,
        "calls": _CALLS,
        "shadow": pa.string(),
        "sealed": pa.binary(),
    }
)

SCHEMAS = {EXCHANGES: EXCHANGE_SCHEMA, FEEDBACK: FEEDBACK_SCHEMA, SHADOWS: SHADOW_SCHEMA}

_R = TypeVar("_R", Exchange, Feedback, Shadowed)

_exchange = msgspec.json.Decoder(Exchange)
_feedback = msgspec.json.Decoder(Feedback)
_shadowed = msgspec.json.Decoder(Shadowed)


def partition(record: Record) -> str:
    """The folder of the archive that a record belongs into."""
    if isinstance(record, Feedback):
        return f"{FEEDBACK}/date={_day(record.given_at)}"
    domain = quote(record.domain, safe="")
    return f"{kind_of(record)}/date={_day(record.started_at)}/domain={domain}"


def kind_of(record: Record) -> str:
    """What it is, a key of SCHEMAS."""
    match record:
        case Feedback():
            return FEEDBACK
        case Shadowed():
            return SHADOWS
        case _:
            return EXCHANGES


class Rows:
    """Turns records into rows, and rows into records."""

    def __init__(self, keyring: Keyring | None = None) -> None:
        self._keyring = keyring
        self._json = msgspec.json.Encoder()
        self._zstd = zstandard.ZstdCompressor()

    def table(self, records: Sequence[Record]) -> pa.Table:
        """A table of records of one kind."""
        schema = SCHEMAS[kind_of(records[0])]
        return pa.Table.from_pylist([self._row(one) for one in records], schema=schema)

    def _row(self, record: Record) -> dict[str, object]:
        match record:
            case Feedback():
                return self._feedback(record)
            case Shadowed():
                return self._shadowed(record)
            case _:
                return self._exchange(record)

    def exchanges(self, batch: pa.RecordBatch) -> Iterator[Exchange]:
        """The exchanges of rows that have the columns `exchange` and `sealed`; raises SealError
        without their key, and NewerRecord. So do the others."""
        for content in self.contents(batch, "exchange"):
            yield _read(_exchange, content)

    def feedback(self, batch: pa.RecordBatch) -> Iterator[Feedback]:
        """The feedback of rows that have the columns `feedback` and `sealed`."""
        for content in self.contents(batch, "feedback"):
            yield _read(_feedback, content)

    def shadows(self, batch: pa.RecordBatch) -> Iterator[Shadowed]:
        """The shadows of rows that have the columns `shadow` and `sealed`."""
        for content in self.contents(batch, "shadow"):
            yield _read(_shadowed, content)

    def contents(self, batch: pa.RecordBatch, column: str) -> Iterator[bytes]:
        """The JSON of each row; raises SealError without its key."""
        plain, sealed = batch.column(column), batch.column("sealed")
        for index in range(batch.num_rows):
            text = plain[index].as_py()
            yield self._opened(sealed[index].as_py()) if text is None else text.encode()

    def _exchange(self, one: Exchange) -> dict[str, object]:
        last = one.attempts[-1] if one.attempts else None
        usage = last.usage if last else None
        return {
            "id": one.id,
            "request_id": one.request_id,
            "started_at": _time(one.started_at),
            "date": _day(one.started_at),
            "tenant": one.tenant,
            "caller": one.caller,
            "conversation": one.conversation,
            "domain": one.domain,
            "route": one.route,
            "model": one.model,
            "stream": one.stream,
            "level": one.level,
            "outcome": one.outcome,
            "status": one.status,
            "retries": one.retries,
            "total_s": one.total_s,
            "first_byte_s": last and last.first_byte_s,
            "backend": last and last.backend,
            "adapter": last and last.adapter,
            "prompt_tokens": usage and usage.prompt_tokens,
            "completion_tokens": usage and usage.completion_tokens,
            "cost_usd": one.cost_usd,
            "tools_fingerprint": one.tools_fingerprint,
            "attempts": [_attempt(attempt) for attempt in one.attempts],
            "calls": _calls(last.answer) if last else [],
            "tool_results": [msgspec.structs.asdict(result) for result in one.tool_results],
            "assigned": one.assigned or None,
            **self._whole(one, "exchange"),
        }

    def _feedback(self, one: Feedback) -> dict[str, object]:
        return {
            "id": one.id,
            "given_at": _time(one.given_at),
            "date": _day(one.given_at),
            "tenant": one.tenant,
            "caller": one.caller,
            "exchange_id": one.exchange,
            "conversation": one.conversation,
            "name": one.name,
            "kind": one.kind,
            "number": float(one.value) if isinstance(one.value, int | float) else None,
            **self._whole(one, "feedback"),
        }

    def _shadowed(self, one: Shadowed) -> dict[str, object]:
        return {
            "id": one.id,
            "exchange_id": one.exchange,
            "started_at": _time(one.started_at),
            "date": _day(one.started_at),
            "tenant": one.tenant,
            "caller": one.caller,
            "conversation": one.conversation,
            "domain": one.domain,
            **_attempt(one.attempt),
            "calls": _calls(one.attempt.answer),
            **self._whole(one, "shadow"),
        }

    def _whole(self, record: Record, column: str) -> dict[str, object]:
        content = self._json.encode(record)
        if self._keyring is None:
            return {column: content.decode()}
        return {"sealed": self._keyring.seal(self._zstd.compress(content), _LABEL)}

    def _opened(self, sealed: bytes | None) -> bytes:
        if sealed is None:
            raise ValueError("a row without its record")
        if self._keyring is None:
            raise SealError("the record is encrypted, and there is no key (record.encryption)")
        packed = self._keyring.open(sealed, _LABEL)
        return unpacked(packed, zstandard.ZstdDecompressor())


def _read(decoder: msgspec.json.Decoder[_R], content: bytes) -> _R:
    try:
        return decoder.decode(content)
    except msgspec.ValidationError as error:
        raise NewerRecord(
            "a newer release wrote some of the archive's rows; upgrade Headrace"
        ) from error


def _attempt(one: Attempt) -> dict[str, object]:
    return {
        "kind": one.kind,
        "backend": one.backend,
        "adapter": one.adapter,
        "model": one.model,
        "outcome": one.outcome,
        "reason": one.reason,
        "prompt_tokens": one.usage and one.usage.prompt_tokens,
        "completion_tokens": one.usage and one.usage.completion_tokens,
        "usage_source": one.usage_source,
        "cost_usd": one.cost_usd,
        "first_byte_s": one.first_byte_s,
        "total_s": one.total_s,
    }


def _calls(answer: Answer) -> list[dict[str, str]]:
    return [{"id": call.id, "name": call.function.name} for call in answer.tool_calls]


def _time(seconds: float) -> datetime:
    return datetime.fromtimestamp(seconds, UTC)


def _day(seconds: float) -> date:
    return _time(seconds).date()
