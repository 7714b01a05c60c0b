"""What is exported is what others read."""

from __future__ import annotations

from pathlib import Path

import msgspec
import pyarrow.parquet as pq

from proxy.record import export
from tests.record.examples import exchange, shelf, write


def test_lines_are_chats_with_the_answer_last(tmp_path: Path):
    tools = b'[{"type":"function","function":{"name":"ping"}}]'
    body = b'{"model":"m","temperature":1,"messages":[{"role":"user","content":"hi"}],"tools":%b}'
    write(tmp_path, exchange("a", request=msgspec.Raw(body % tools)))

    (line,) = map(msgspec.json.decode, export.openai_lines(shelf(tmp_path), "true"))

    assert line["messages"][0] == {"role": "user", "content": "hi"}
    assert line["messages"][1]["role"] == "assistant"
    assert line["messages"][1]["tool_calls"][0]["function"]["name"] == "ping"
    assert line["tools"] == msgspec.json.decode(tools)
    assert set(line) == {"messages", "tools"}


def test_only_whole_exchanges_that_were_asked_for_become_lines(tmp_path: Path):
    write(
        tmp_path,
        exchange("whole"),
        exchange("failed", outcome="failed"),
        exchange("outline", level="metadata", request=msgspec.Raw(b"{}")),
        exchange("embedding", request=msgspec.Raw(b'{"input":"x"}')),
        exchange("elsewhere", domain="chat"),
    )

    lines = list(export.openai_lines(shelf(tmp_path), "domain = 'api'"))

    assert len(lines) == 1
    assert b"Ping whole." in lines[0]


def test_parquet_is_one_file_of_rows(tmp_path: Path):
    write(tmp_path, exchange("a"), exchange("b", domain="chat"))

    count = export.parquet(shelf(tmp_path), "domain = 'chat'", tmp_path / "out.parquet")

    assert count == 1
    assert pq.read_table(tmp_path / "out.parquet").column("id").to_pylist() == ["b"]
