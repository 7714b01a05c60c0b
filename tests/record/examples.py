"""Records for tests, and shelves of them."""

from __future__ import annotations

from datetime import UTC, datetime
from pathlib import Path

import msgspec
import pyarrow.parquet as pq

from proxy.protocol.exchange import VERSION, Answer, Attempt, Exchange, ToolResult
from proxy.protocol.feedback import Feedback
from proxy.protocol.openai import FunctionCall, ToolCall, Usage
from proxy.protocol.sealing import Keyring
from proxy.protocol.segments import Encoder, Record, Segment
from proxy.protocol.shadowed import Shadowed
from proxy.record.archive import Archive, DirectoryArchive
from proxy.record.shelf import Shelf

NOW = datetime(2026, 2, 1, 12, tzinfo=UTC).timestamp()
DAY = 24 * 60 * 60


def exchange(id: str, **fields: object) -> Exchange:
    """An exchange of today; its answer is one call, `call-<id>`."""
    call = ToolCall(f"call-{id}", FunctionCall("ping", '{"host":"a"}'))
    attempt = Attempt(
        kind="primary",
        backend="local",
        outcome="completed",
        answer=Answer(tool_calls=[call], finish_reason="tool_calls"),
        usage=Usage.of(30, 10),
        usage_source="reported",
        cost_usd=0.5,
        started_at=NOW,
        first_byte_s=0.1,
        total_s=0.2,
    )
    request = {"model": "m", "messages": [{"role": "user", "content": f"Ping {id}."}]}
    whole: dict[str, object] = {
        "id": id,
        "request_id": f"req-{id}",
        "version": VERSION,
        "started_at": NOW,
        "total_s": 0.25,
        "tenant": "t",
        "caller": "app",
        "conversation": "conv-1",
        "domain": "api",
        "route": "exact",
        "model": "m",
        "stream": False,
        "request": msgspec.Raw(msgspec.json.encode(request)),
        "attempts": [attempt],
        "outcome": "completed",
        "status": 200,
    }
    return Exchange(**(whole | fields))


def result(call: str, outcome: str) -> ToolResult:
    return msgspec.convert({"tool_call_id": call, "outcome": outcome}, ToolResult)


def feedback(id: str, exchange: str | None = None, **fields: object) -> Feedback:
    whole: dict[str, object] = {
        "id": id,
        "given_at": NOW,
        "tenant": "t",
        "caller": "app",
        "exchange": exchange,
        "kind": "boolean",
        "value": True,
    }
    return Feedback(**(whole | fields))


def shadowed(id: str, exchange: str, **fields: object) -> Shadowed:
    """A shadow of today: the cloud called nothing."""
    attempt = Attempt(
        kind="shadow",
        backend="azure",
        model="gpt-4o",
        outcome="completed",
        answer=Answer(text="No need.", finish_reason="stop"),
        usage=Usage.of(30, 4),
        cost_usd=0.25,
        started_at=NOW,
        total_s=0.5,
    )
    whole: dict[str, object] = {
        "id": id,
        "exchange": exchange,
        "tenant": "t",
        "caller": "app",
        "conversation": "conv-1",
        "domain": "api",
        "attempt": attempt,
    }
    return Shadowed(**(whole | fields))


def write(directory: Path, *records: Record, keyring: Keyring | None = None) -> Path:
    """A complete segment of these records."""
    segment = Segment(directory)
    segment.append(Encoder(keyring).encode(records))
    segment.close()
    return segment.path


def shelf(directory: Path, archive: Archive | None = None, keyring: Keyring | None = None) -> Shelf:
    """The shelf of a directory; its archive is in it unless there is another."""
    return Shelf(directory, archive or DirectoryArchive(directory / "archive"), keyring)


def ids(directory: Path, archive: Archive | None = None) -> list[str]:
    """Ids of all exchanges that a new reader sees."""
    return [one.id for one in shelf(directory, archive).exchanges()]


def spoil(path: Path, column: str | None = None) -> None:
    """Make a Parquet file, or one of its columns, unreadable: who needs it not does not notice."""
    if column is None:
        path.write_bytes(b"no Parquet")
        return
    said = pq.read_metadata(path)
    groups = [said.row_group(number) for number in range(said.num_row_groups)]
    chunks = [group.column(number) for group in groups for number in range(said.num_columns)]
    with path.open("r+b") as file:
        for chunk in chunks:
            if chunk.path_in_schema == column:
                file.seek(chunk.dictionary_page_offset or chunk.data_page_offset)
                file.write(b"\xff" * chunk.total_compressed_size)


def archived(directory: Path, kind: str = "exchanges", day: float = NOW) -> Path:
    """The only file of a kind and a day."""
    date = f"date={datetime.fromtimestamp(day, UTC):%Y-%m-%d}"
    (path,) = (directory / "archive" / kind / date).rglob("*.parquet")
    return path
