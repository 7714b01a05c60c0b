"""A stream, assembled by a client, is what the whole answer says."""

from __future__ import annotations

import json
from collections.abc import AsyncIterator, Sequence
from typing import Any

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st
from openai.lib.streaming.chat import ChatCompletionStreamState
from openai.types.chat import (
    ChatCompletion,
    ChatCompletionChunk,
    ChatCompletionMessageToolCallUnion,
)

from proxy import assemble, sse
from proxy.backends.base import Call, Event, Finish, Text
from proxy.errors import BackendUnavailable
from proxy.protocol.openai import FinishReason, FunctionCall, ToolCall, Usage
from tests.openai_api import api_errors, has_schemas

HEAD = assemble.Head(id="chatcmpl-1", created=1_700_000_000, model="headrace")
USAGE = Usage.of(7, 5)
STOP = Finish(reason="stop", usage=USAGE)


def call(name: str = "add", arguments: str = '{"a":1}', id: str = "call_1") -> Call:
    return Call(ToolCall(id, FunctionCall(name, arguments)))


texts = st.builds(Text, st.text())
calls = st.builds(call, st.text(min_size=1), st.text(), st.text(min_size=1))
reasons: st.SearchStrategy[FinishReason] = st.sampled_from(["stop", "length", "content_filter"])
finishes = st.builds(Finish, reason=reasons, usage=st.just(USAGE))
answers = st.tuples(st.lists(texts | calls, max_size=8), finishes).map(lambda a: [*a[0], a[1]])


def streamed(events: Sequence[Event], include_usage: bool = False) -> bytes:
    chunks = assemble.Chunks(HEAD, include_usage)
    return b"".join(map(chunks.encode, events))


def chunks_of(wire: bytes) -> list[Any]:
    *chunks, done = sse.EventDecoder().feed(wire)
    assert done == sse.DONE
    return [json.loads(chunk) for chunk in chunks]


def read_by_the_official_client(wire: bytes) -> ChatCompletion:
    state: ChatCompletionStreamState[None] = ChatCompletionStreamState()
    for chunk in chunks_of(wire):
        state.handle_chunk(ChatCompletionChunk.model_validate(chunk))
    return ChatCompletion.model_validate(state.current_completion_snapshot.to_dict())


def spoken(call: ChatCompletionMessageToolCallUnion) -> tuple[str, str, str]:
    assert call.type == "function"
    return call.id, call.function.name, call.function.arguments


def plain(completion: ChatCompletion) -> dict[str, object]:
    """The parts of a completion that a client acts on."""
    message = completion.choices[0].message
    return {
        "id": completion.id,
        "created": completion.created,
        "model": completion.model,
        "role": message.role,
        "content": message.content,
        "calls": [spoken(call) for call in message.tool_calls or ()],
        "finish_reason": completion.choices[0].finish_reason,
        "usage": completion.usage and completion.usage.to_dict(),
    }


def whole(events: Sequence[Event]) -> ChatCompletion:
    completion = assemble.completion(HEAD, events)
    return ChatCompletion.model_validate_json(msgspec.json.encode(completion))


@given(events=answers)
def test_the_assembled_stream_equals_the_whole(events: list[Event]) -> None:
    wire = streamed(events, include_usage=True)

    assert plain(read_by_the_official_client(wire)) == plain(whole(events))


@given(events=answers)
def test_every_chunk_has_the_same_head(events: list[Event]) -> None:
    heads = [(c["id"], c["created"], c["model"]) for c in chunks_of(streamed(events))]

    assert set(heads) == {("chatcmpl-1", 1_700_000_000, "headrace")}


@given(events=answers)
def test_the_role_is_in_the_first_delta_and_in_no_other(events: list[Event]) -> None:
    deltas = [c["choices"][0]["delta"] for c in chunks_of(streamed(events))]

    assert [delta.get("role") for delta in deltas] == ["assistant"] + [None] * (len(deltas) - 1)


@given(events=answers)
def test_the_finish_reason_is_tool_calls_exactly_when_there_are_calls(events: list[Event]) -> None:
    has_calls = any(isinstance(event, Call) for event in events)

    assert (whole(events).choices[0].finish_reason == "tool_calls") is has_calls


def test_a_finish_reason_of_calls_that_never_came_is_a_stop() -> None:
    events: list[Event] = [Text("no call"), Finish(reason="tool_calls", usage=USAGE)]

    assert whole(events).choices[0].finish_reason == "stop"


def test_a_call_says_its_id_type_and_name_once() -> None:
    first, second, end = chunks_of(streamed([call(), STOP]))

    assert first["choices"][0]["delta"] == {
        "role": "assistant",
        "content": None,
        "tool_calls": [
            {
                "index": 0,
                "id": "call_1",
                "type": "function",
                "function": {"name": "add", "arguments": ""},
            }
        ],
    }
    assert second["choices"][0]["delta"] == {
        "tool_calls": [{"index": 0, "function": {"arguments": '{"a":1}'}}]
    }
    assert end["choices"][0]["delta"] == {}


def test_parallel_calls_count_up() -> None:
    read = read_by_the_official_client(streamed([call(id="a"), call(id="b"), call(id="c"), STOP]))

    assert [c.id for c in read.choices[0].message.tool_calls or ()] == ["a", "b", "c"]


def test_empty_arguments_become_an_empty_object() -> None:
    said = whole([call(arguments=""), STOP]).choices[0].message.tool_calls or []

    assert [spoken(one) for one in said] == [("call_1", "add", "{}")]


def test_usage_comes_last_in_a_chunk_without_choices_when_asked_for() -> None:
    *others, last = chunks_of(streamed([Text("hi"), STOP], include_usage=True))

    assert last["choices"] == []
    assert last["usage"] == {"prompt_tokens": 7, "completion_tokens": 5, "total_tokens": 12}
    assert [chunk["usage"] for chunk in others] == [None, None]


def test_usage_is_not_in_a_stream_when_not_asked_for() -> None:
    assert all("usage" not in chunk for chunk in chunks_of(streamed([Text("hi"), STOP])))


def test_an_answer_of_nothing_is_an_empty_text() -> None:
    assert read_by_the_official_client(streamed([STOP])).choices[0].message.content == ""
    assert whole([STOP]).choices[0].message.content == ""


async def replayed(events: Sequence[Event]) -> AsyncIterator[Event]:
    for event in events:
        yield event


async def test_a_stream_gives_what_its_chunks_give() -> None:
    events: list[Event] = [Text("hi"), Text(""), call(), STOP]

    pieces = [piece async for piece in assemble.stream(HEAD, replayed(events))]

    assert b"".join(pieces) == streamed(events)
    assert b"" not in pieces


async def test_a_stream_without_an_end_is_an_error_and_never_done() -> None:
    pieces = assemble.stream(HEAD, replayed([Text("hi")]))

    assert assemble.DONE not in await anext(pieces)
    with pytest.raises(BackendUnavailable):
        await anext(pieces)


async def test_a_whole_answer_without_an_end_is_an_error() -> None:
    with pytest.raises(BackendUnavailable):
        await assemble.complete(HEAD, replayed([Text("hi")]))


# ---------------------------------------------------------------- OpenAI's own schemas


@has_schemas
@pytest.mark.parametrize("events", [[STOP], [Text("hi"), STOP], [Text("hi"), call(), call(), STOP]])
@pytest.mark.parametrize("include_usage", [True, False])
def test_openai_would_say_it_so(events: list[Event], include_usage: bool) -> None:
    said = msgspec.to_builtins(assemble.completion(HEAD, events))
    chunks = chunks_of(streamed(events, include_usage))

    assert api_errors(said, "CreateChatCompletionResponse") == []
    assert [api_errors(one, "CreateChatCompletionStreamResponse") for one in chunks] == (
        [[]] * len(chunks)
    )
