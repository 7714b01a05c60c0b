"""The record for others: lines for OpenAI's fine-tuning, or one Parquet file.

Source: OpenAI, "Supervised fine-tuning", chat format: `messages`, the answer last, and `tools`.
"""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import msgspec
import pyarrow as pa
import pyarrow.parquet as pq

from proxy.protocol.exchange import Exchange
from proxy.protocol.openai import ToolCall
from proxy.record import query
from proxy.record.shelf import Shelf


class _Request(msgspec.Struct):
    messages: list[msgspec.Raw]
    tools: msgspec.Raw | msgspec.UnsetType = msgspec.UNSET
    parallel_tool_calls: bool | msgspec.UnsetType = msgspec.UNSET


class _Answer(msgspec.Struct):
    content: str | None
    tool_calls: list[ToolCall] | msgspec.UnsetType = msgspec.UNSET
    role: str = "assistant"


def openai_lines(shelf: Shelf, where: str) -> Iterator[bytes]:
    """One line for each whole exchange that `where`, a condition in SQL, holds for."""
    condition = f"({where}) AND outcome = 'completed' AND level = 'full'"
    for batch in _batches(shelf, "exchange, sealed", condition):
        yield from filter(None, map(_line, shelf.rows.exchanges(batch)))


def parquet(shelf: Shelf, where: str, target: Path) -> int:
    """Write the rows of exchanges for which `where` holds into one file; how many there are."""
    count = 0
    writer: pq.ParquetWriter | None = None
    try:
        for batch in _batches(shelf, "*", where):
            writer = writer or pq.ParquetWriter(target, batch.schema, compression="zstd")
            writer.write_batch(batch)
            count += batch.num_rows
    finally:
        if writer is not None:
            writer.close()
    return count


def _batches(shelf: Shelf, columns: str, where: str) -> Iterator[pa.RecordBatch]:
    with query.opened(shelf) as connection:
        sql = f"SELECT {columns} FROM exchanges WHERE {where}"  # noqa: S608  # a sandbox
        yield from query.run(connection, sql).record_batches()


def _line(exchange: Exchange) -> bytes | None:
    """The exchange as a line; None for a request that is not a chat."""
    try:
        request = msgspec.json.decode(exchange.request, type=_Request)
    except ValueError:
        return None
    said = exchange.attempts[-1].answer
    answer = _Answer(content=said.text or None, tool_calls=said.tool_calls or msgspec.UNSET)
    request.messages.append(msgspec.Raw(msgspec.json.encode(answer)))
    return msgspec.json.encode(request)
