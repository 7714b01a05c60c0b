"""The law: what the events add up to is what the last one holds, and what the whole would be."""

from __future__ import annotations

from typing import Any

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from proxy.protocol import loose
from proxy.protocol.responses import answer
from proxy.protocol.responses.events import ResponseEvents
from proxy.protocol.responses.request import parse
from tests.openai_api import api_errors

REQUEST = parse(
    b'{"model":"gpt-4o","input":"hi","user":"u","tools":[{"type":"function","name":"f"}],'
    b'"metadata":{"a":"b"}}'
)
USAGE = {"prompt_tokens": 3, "completion_tokens": 2, "total_tokens": 5}
PIECES = st.lists(st.text(min_size=1, max_size=3), max_size=4)


def piece(**said: object) -> loose.Piece:
    return msgspec.convert({"id": "chatcmpl-1", "created": 1, **said}, loose.Piece)


def delta(reason: str | None = None, **said: object) -> loose.Piece:
    return piece(choices=[{"index": 0, "delta": said, "finish_reason": reason}])


def streamed(*chunks: loose.Piece) -> list[dict[str, Any]]:
    """The events of a stream as a client reads them."""
    events = ResponseEvents(REQUEST)
    made = [event for chunk in chunks for event in events.feed(chunk)]
    return msgspec.json.decode(msgspec.json.encode([*made, *events.end()]))


def call_parts(index: int, pieces: list[str]) -> list[loose.Piece]:
    named = {"name": "f", "arguments": ""}
    first = {"index": index, "id": f"call_{index}", "type": "function", "function": named}
    rest = [{"index": index, "function": {"arguments": one}} for one in pieces]
    return [delta(tool_calls=[part]) for part in (first, *rest)]


def added_up(events: list[dict[str, Any]]) -> list[dict[str, Any]]:
    """The output as a client puts it together from the deltas alone."""
    items: list[dict[str, Any]] = []
    for event in events:
        match event["type"]:
            case "response.output_item.added":
                assert event["output_index"] == len(items)
                items.append(event["item"])
            case "response.content_part.added":
                assert event["content_index"] == len(items[event["output_index"]]["content"])
                items[event["output_index"]]["content"].append(event["part"])
            case "response.output_text.delta":
                place = items[event["output_index"]]["content"][event["content_index"]]
                place["text"] += event["delta"]
            case "response.refusal.delta":
                place = items[event["output_index"]]["content"][event["content_index"]]
                place["refusal"] += event["delta"]
            case "response.function_call_arguments.delta":
                items[event["output_index"]]["arguments"] += event["delta"]
    return [item | {"status": "completed"} for item in items]


@given(PIECES, st.lists(st.lists(st.sampled_from(["{", "}", "x"]), min_size=1), max_size=3))
def test_deltas_add_up_to_the_last_event_and_to_the_whole(texts: list[str], calls: list[list[str]]):
    chunks = [delta(role="assistant", content=""), *(delta(content=text) for text in texts)]
    chunks += [part for i, pieces in enumerate(calls) for part in call_parts(i, pieces)]
    reason = "tool_calls" if calls else "stop"

    events = streamed(*chunks, delta(reason), piece(choices=[], usage=USAGE))

    made = [
        {"id": f"call_{i}", "function": {"name": "f", "arguments": "".join(pieces)}}
        for i, pieces in enumerate(calls)
    ]
    message = {"content": "".join(texts) or None, "tool_calls": made or None}
    choice = {"index": 0, "message": message, "finish_reason": reason}
    whole = msgspec.json.decode(
        msgspec.json.encode(answer.whole(REQUEST, piece(choices=[choice], usage=USAGE)))
    )
    last = events[-1]["response"]
    assert added_up(events) == last["output"] == whole["output"]
    assert last["usage"] == whole["usage"]
    assert [event["sequence_number"] for event in events] == list(range(len(events)))
    assert [
        errors for event in events if (errors := api_errors(event, "ResponseStreamEvent"))
    ] == []
    assert api_errors(whole, "Response") == []


def test_events_come_in_openai_s_order():
    events = streamed(delta(content="a"), *call_parts(0, ["{}"]), delta("tool_calls"))

    assert [event["type"].removeprefix("response.") for event in events] == [
        "created",
        "in_progress",
        "output_item.added",
        "content_part.added",
        "output_text.delta",
        "output_text.done",
        "content_part.done",
        "output_item.done",
        "output_item.added",
        "function_call_arguments.delta",
        "function_call_arguments.done",
        "output_item.done",
        "completed",
    ]


def test_calls_whose_parts_alternate_are_kept_apart():
    first, second = call_parts(0, ["{", "}"]), call_parts(1, ["[", "]"])
    mixed = [chunk for pair in zip(first, second, strict=True) for chunk in pair]

    output = streamed(*mixed, delta("tool_calls"))[-1]["response"]["output"]

    assert [(item["call_id"], item["arguments"]) for item in output] == [
        ("call_0", "{}"),
        ("call_1", "[]"),
    ]


@pytest.mark.parametrize(
    ("reason", "said"), [("length", "max_output_tokens"), ("content_filter", "content_filter")]
)
def test_answer_that_was_cut_is_incomplete(reason: str, said: str):
    last = streamed(delta(content="a"), delta(reason))[-1]

    assert last["type"] == "response.incomplete"
    assert last["response"]["status"] == "incomplete"
    assert last["response"]["incomplete_details"] == {"reason": said}
    assert last["response"]["output"][0]["status"] == "incomplete"
    assert api_errors(last, "ResponseIncompleteEvent") == []


def test_refusal_is_a_part_of_its_own():
    events = streamed(delta(content="a"), delta(refusal="no"), delta("stop"))

    parts = events[-1]["response"]["output"][0]["content"]
    assert [part["type"] for part in parts] == ["output_text", "refusal"]
    assert [
        errors for event in events if (errors := api_errors(event, "ResponseStreamEvent"))
    ] == []


def test_arguments_that_are_left_out_are_an_empty_object():
    output = streamed(*call_parts(0, []), delta("tool_calls"))[-1]["response"]["output"]

    assert output[0]["arguments"] == "{}"


@pytest.mark.parametrize("chunks", [[], [delta(content="a")]])
def test_stream_without_an_end_is_no_response(chunks: list[loose.Piece]):
    with pytest.raises(ValueError):
        streamed(*chunks)


def test_completion_without_a_finished_choice_is_no_response():
    with pytest.raises(ValueError):
        answer.whole(REQUEST, piece(choices=[]))
