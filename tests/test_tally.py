from __future__ import annotations

import msgspec
import pytest

from proxy.protocol.loose import Counted, Details
from proxy.sse import encode
from proxy.tally import Tally

JSON, EVENTS = "application/json", "text/event-stream; charset=utf-8"
EMBEDDED = {"model": "e", "data": [{"usage": 1}], "usage": {"prompt_tokens": 3}}
COMPLETED = {"model": "c", "usage": {"prompt_tokens": 3, "completion_tokens": 4}}
RESPONSE = {
    "model": "r",
    "tools": [{"parameters": {"properties": {"usage": {"input_tokens": 0}}}}],
    "usage": {
        "input_tokens": 3,
        "input_tokens_details": {"cached_tokens": 2},
        "output_tokens": 4,
        "total_tokens": 7,
    },
}
DELTA = {"type": "response.output_text.delta", "delta": '"usage":{"input_tokens":0}'}
CREATED = {"type": "response.created", "response": {"model": "r", "usage": None}}
ENDED = {"type": "response.completed", "response": RESPONSE}
TOLD = Counted(3, 4, 7, Details(2))


def told(kind: str, *pieces: bytes) -> tuple[Counted | None, str | None]:
    tally = Tally(kind)
    assert [tally.take(piece) for piece in pieces] == list(pieces)
    return tally.read()


@pytest.mark.parametrize(
    ("answer", "used"),
    [
        (EMBEDDED, (Counted(3, 0, 3), "e")),
        (COMPLETED, (Counted(3, 4, 7), "c")),
        (RESPONSE, (TOLD, "r")),
        ({"object": "list"}, (None, None)),
        ([1], (None, None)),
    ],
)
def test_whole_answer_tells_what_it_used(answer: object, used: object):
    content = msgspec.json.encode(answer)

    assert told(JSON, content[:9], content[9:]) == used


def test_stream_tells_what_it_used_at_its_end():
    wire = b"".join(encode(msgspec.json.encode(one)) for one in (CREATED, DELTA, ENDED))

    assert told(EVENTS, *[wire[at : at + 7] for at in range(0, len(wire), 7)]) == (TOLD, "r")


def test_stream_that_breaks_off_tells_nothing():
    wire = b"".join(encode(msgspec.json.encode(one)) for one in (CREATED, DELTA))

    assert told(EVENTS, wire) == (None, "r")


@pytest.mark.parametrize("kind", [JSON, EVENTS, "audio/mpeg", ""])
def test_what_cannot_be_read_tells_nothing(kind: str):
    assert told(kind, b"data: [DONE]\n\n", b"\xff" * 9_000_000) == (None, None)
