from __future__ import annotations

import os
import threading

import msgspec

from proxy.log_lines import LogLines


def test_lines_come_out_in_order():
    reading, writing = os.pipe()
    with open(reading, "rb") as out, open(writing, "wb") as pipe:
        lines = LogLines(pipe)
        for number in range(100):
            lines.info(b"%d" % number)
        lines.flush()

        assert [int(out.readline()) for _ in range(100)] == list(range(100))


def test_pipe_that_nobody_reads_stops_nobody_and_the_loss_is_told():
    reading, writing = os.pipe()
    with open(reading, "rb") as out, open(writing, "wb") as pipe:
        lines = LogLines(pipe, most=10)
        for _ in range(100):
            lines.info(b"x" * 8192)
        dropped = lines.dropped
        lines.flush(0.05)
        assert dropped >= 50

        found: list[bytes] = []
        reader = threading.Thread(
            target=lambda: found.extend(out.readline() for _ in range(101 - dropped))
        )
        reader.start()
        reader.join(10)

    told = [msgspec.json.decode(line) for line in found if line.startswith(b"{")]
    assert told == [{"event": "log_lines_dropped", "count": dropped, "level": "warning"}]


def test_closed_pipe_ends_nothing():
    reading, writing = os.pipe()
    os.close(reading)
    with open(writing, "wb", buffering=0) as pipe:
        lines = LogLines(pipe)
        for _ in range(5):
            lines.info(b"x")
        lines.flush()

    assert lines.dropped == 0
