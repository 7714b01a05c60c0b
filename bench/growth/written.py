"""A record of any size, as a proxy that is compacted leaves it; ten million exchanges take minutes.

Rows of the real code are the patterns (`Rows.table`). In each row the ids (128 bits, by chance),
times, words and called arguments are drawn anew, in the columns and in the record's JSON alike, so
that nothing compresses or is skipped better than in a real record. What an application sends again
and again (system prompt, tools) is the same in each. Files, folders, row groups and compression are
compaction's: a file a day and domain, of the last day one an hour.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator, Mapping, Sequence
from itertools import pairwise
from pathlib import Path
from typing import TypeAlias

import msgspec
import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from bench.growth.traffic import WORDS
from proxy.protocol.exchange import VERSION, Answer, Attempt, Exchange, Kind
from proxy.protocol.feedback import Feedback
from proxy.protocol.openai import FunctionCall, ToolCall, Usage
from proxy.protocol.parquet import SUFFIX, Rows, kind_of, partition
from proxy.protocol.segments import Encoder, Record, Segment
from proxy.protocol.shadowed import Shadowed
from proxy.record.partitions import ROWS, writer

DAYS = 30
DOMAINS = 10
TURNS = 4
"""Exchanges of a conversation."""
SHADOWED, SHOWN = 10, 20
"""One exchange of so many has a shadow, and one a demonstration."""
FRESH = 100
"""One of so many, the last ones, lies in a segment."""
_DAY = 24 * 60 * 60
_RUN_S = 60 * 60
"""Seconds between two compactions: the chart's default."""
_BATCH = 256
_SEGMENT_BYTES = 64 * 1024 * 1024
_PHRASES = 4096
_NUMBERS = {1111.5: "@at@", 2222.5: "@seconds@"}
"""In JSON a mark cannot stand where a number does: these stand for them in the patterns."""
_AT, _SECONDS = _NUMBERS

_Drawn: TypeAlias = Mapping[str, pa.Array]
"""Mark → what stands there, a value for each row; all text, but for `at` (seconds)."""


def write(directory: Path, count: int, now: float) -> None:
    """Write a record of so many exchanges that ends `now` (seconds since the epoch)."""
    chance = np.random.default_rng(count)
    first, fresh = now - DAYS * _DAY, now - DAYS * _DAY / FRESH
    done = 0
    for start, end in _runs(first, now, fresh):
        upto = round(count * (end - first) / (now - first))
        tables = (
            _tables(chance, domain, _share(done, upto, domain), start, end)
            for domain in range(DOMAINS)
        )
        if start >= fresh:
            _write_segments(directory, tables)
        else:
            _write_archive(directory / "archive", f"{start:.0f}-growth", tables)
        done = upto


def _runs(first: float, now: float, fresh: float) -> Iterator[tuple[float, float]]:
    """From when to when the exchanges of each file began: a day's, and of the day that is not over
    at the last compaction, an hour's. The last are the segments'."""
    today = fresh - fresh % _DAY
    days = np.arange(first - first % _DAY + _DAY, today, _DAY)
    hours = np.arange(max(today, first), fresh, _RUN_S)
    edges = [first, *days.tolist(), *hours.tolist(), fresh, now]
    yield from pairwise(edges)


def _share(done: int, upto: int, domain: int) -> int:
    """How many of the exchanges from `done` to `upto` are the domain's."""
    return len(range(done + (domain - done) % DOMAINS, upto, DOMAINS))


def _tables(
    chance: np.random.Generator, domain: int, count: int, start: float, end: float
) -> list[pa.Table]:
    """Exchanges of a domain in the order of time, their shadows, and what was said of them."""
    drawn = _drawn(chance, domain, count, start, end)
    return [
        _EXCHANGE.table(drawn),
        _SHADOW.table(_some(drawn, SHADOWED)),
        _DEMONSTRATION.table(_some(drawn, SHOWN)),
    ]


def _drawn(
    chance: np.random.Generator, domain: int, count: int, start: float, end: float
) -> dict[str, pa.Array]:
    at = np.sort(np.round(chance.uniform(start, end, count), 6))
    turns = _hex(chance, -(-count // TURNS), 32).take(pa.array(np.arange(count) // TURNS))
    return {
        "at": pa.array(at),
        "id": _hex(chance, count, 32),
        "request": _hex(chance, count, 32),
        "call": _hex(chance, count, 24),
        "shadow": _hex(chance, count, 32),
        "said": _hex(chance, count, 32),
        "conversation": turns,
        "domain": pa.array([f"d{domain}"] * count, pa.string()),
        "words": pc.binary_join_element_wise(*(_phrases(chance, count) for _ in range(6)), " "),
        "city": pa.array(WORDS).take(pa.array(chance.integers(len(WORDS), size=count))),
        "seconds": pa.array(chance.gamma(2, 0.2, count).round(4)).cast(pa.string()),
    }


def _hex(chance: np.random.Generator, count: int, digits: int) -> pa.Array:
    """Ids, as many digits long each."""
    text = chance.bytes(count * digits // 2).hex().encode()
    ends = pa.py_buffer(np.arange(0, (count + 1) * digits, digits, dtype=np.int32))
    return pa.StringArray.from_buffers(count, ends, pa.py_buffer(text))


def _phrases(chance: np.random.Generator, count: int) -> pa.Array:
    return _FIVE_WORDS.take(pa.array(chance.integers(_PHRASES, size=count)))


_FIVE_WORDS = pa.array(
    [" ".join(words) for words in np.random.default_rng(1).choice(WORDS, (_PHRASES, 5))]
)


def _some(drawn: _Drawn, one_of: int) -> _Drawn:
    """One of so many, by chance."""
    ids = drawn["id"].to_pylist()
    wanted = pa.array([int(id, 16) % one_of == 0 for id in ids], pa.bool_())
    return {name: values.filter(wanted) for name, values in drawn.items()}


# ---------------------------------------------------------------- files


def _write_archive(archive: Path, job: str, tables: Iterable[Sequence[pa.Table]]) -> None:
    """The files of one compaction; a domain at a time is in memory."""
    said = []
    for exchanges, shadows, feedback in tables:
        _write_file(archive, job, exchanges)
        _write_file(archive, job, shadows)
        said.append(feedback)
    _write_file(archive, job, pa.concat_tables(said))


def _write_file(archive: Path, job: str, table: pa.Table) -> None:
    if not len(table):
        return
    (first,) = _records(table.slice(0, 1))
    path = archive / partition(first) / f"{job}{SUFFIX}"
    path.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
    with writer(path, kind_of(first)) as parquet:
        parquet.write_table(table, row_group_size=ROWS)


def _write_segments(directory: Path, tables: Iterable[Sequence[pa.Table]]) -> None:
    """As proxies leave them that were not compacted since: in the order of time, 64 MiB each."""
    records = [record for found in tables for table in found for record in _records(table)]
    records.sort(key=lambda one: one.given_at if isinstance(one, Feedback) else one.started_at)
    segment, encoder = Segment(directory), Encoder()
    for at in range(0, len(records), _BATCH):
        if segment.size > _SEGMENT_BYTES:
            segment.close()
            segment = Segment(directory)
        segment.append(encoder.encode(records[at : at + _BATCH]))
    segment.close()


def _records(table: pa.Table) -> Iterator[Record]:
    rows = Rows()
    read = {"exchange": rows.exchanges, "shadow": rows.shadows, "feedback": rows.feedback}
    (column,) = set(read) & set(table.column_names)
    for batch in table.to_batches():
        yield from read[column](batch)


# ---------------------------------------------------------------- patterns


class Pattern:
    """A row of the real code with marks, `@id@`, where each row has something of its own."""

    def __init__(self, record: Record) -> None:
        self._row = Rows().table([record])

    def table(self, drawn: _Drawn) -> pa.Table:
        """A row for each value."""
        count = len(drawn["at"])
        table = self._row.take(pa.array(np.zeros(count, np.int64)))
        for number, field in enumerate(table.schema):
            fresh = self._fresh(field, drawn)
            if fresh is not None:
                table = table.set_column(number, field, fresh)
        return table

    def _fresh(self, field: pa.Field, drawn: _Drawn) -> pa.Array | None:
        """A column in which rows differ; None for the others."""
        value = self._row.column(field.name)[0].as_py()
        match field.name:
            case "started_at" | "given_at":
                micros = np.round(drawn["at"].to_numpy() * 1e6).astype(np.int64)
                return pa.array(micros).cast(field.type)
            case "date":
                days = (drawn["at"].to_numpy() // (24 * 60 * 60)).astype(np.int32)
                return pa.array(days).cast(field.type)
            case "calls":
                return _calls(value, field.type, drawn)
            case "total_s":
                return drawn["seconds"].cast(field.type)
        return _filled(value, drawn) if isinstance(value, str) and "@" in value else None


def _filled(pattern: str, drawn: _Drawn) -> pa.Array:
    """The pattern with what stands at its marks, for each row."""
    for number, mark in _NUMBERS.items():
        pattern = pattern.replace(str(number), mark)
    parts = re.split(r"@(\w+)@", pattern)
    texts = {**drawn, "at": drawn["at"].cast(pa.string())}
    columns = [texts[part] if place % 2 else part for place, part in enumerate(parts)]
    return pc.binary_join_element_wise(*columns, "")


def _calls(value: list[dict[str, str]], type: pa.ListType, drawn: _Drawn) -> pa.Array:
    """One call a row, as the pattern has it."""
    (call,) = value
    count = len(drawn["at"])
    ids, names = _filled(call["id"], drawn), pa.array([call["name"]] * count, pa.string())
    calls = pa.StructArray.from_arrays([ids, names], fields=list(type.value_type))
    return pa.ListArray.from_arrays(pa.array(np.arange(count + 1, dtype=np.int32)), calls, type)


def _exchange() -> Exchange:
    parameters = {"type": "object", "properties": {"city": {"type": "string"}}}
    function = {"name": "find", "description": "Finds a city.", "parameters": parameters}
    body = {
        "model": "m",
        "messages": [
            {"role": "system", "content": "You are a helpful assistant. " * 8},
            {"role": "user", "content": "@words@: where is the nearest station?"},
        ],
        "tools": [{"type": "function", "function": function}],
    }
    return Exchange(
        id="chatcmpl-@id@",
        request_id="req_@request@",
        version=VERSION,
        started_at=_AT,
        total_s=_SECONDS,
        tenant="acme",
        caller="app",
        conversation="conv-@conversation@",
        domain="@domain@",
        route="exact",
        model="m",
        stream=False,
        request=msgspec.Raw(msgspec.json.encode(body)),
        attempts=[_attempt("cloud", "primary", total_s=0.2)],
        outcome="completed",
        status=200,
    )


def _attempt(backend: str, kind: Kind, total_s: float) -> Attempt:
    call = ToolCall("call_@call@", FunctionCall("find", '{"city":"@city@"}'))
    return Attempt(
        kind=kind,
        backend=backend,
        outcome="completed",
        answer=Answer(tool_calls=[call], finish_reason="tool_calls"),
        usage=Usage.of(300, 20),
        usage_source="reported",
        cost_usd=0.001,
        started_at=_AT,
        first_byte_s=0.1,
        total_s=total_s,
    )


def _shadow(of: Exchange) -> Shadowed:
    return Shadowed(
        id="shadow-@shadow@",
        exchange=of.id,
        tenant=of.tenant,
        caller=of.caller,
        conversation=of.conversation,
        domain=of.domain,
        attempt=_attempt("engine", "shadow", total_s=_SECONDS),
    )


def _demonstration(of: Exchange) -> Feedback:
    return Feedback(
        id="feedback-@said@",
        given_at=of.started_at,
        tenant=of.tenant,
        caller=of.caller,
        exchange=of.id,
        kind="demonstration",
        value=of.attempts[0].answer,
    )


_EXCHANGE = Pattern(_exchange())
_SHADOW = Pattern(_shadow(_exchange()))
_DEMONSTRATION = Pattern(_demonstration(_exchange()))
