"""/v1/responses with the official client: by a local engine, by its rescuer, by the cloud."""

from __future__ import annotations

from typing import Any

import msgspec
import openai
import pytest
from openai import AsyncOpenAI
from pydantic import BaseModel

from proxy import sse
from proxy.backends.base import Event, Text
from proxy.errors import BackendUnavailable
from proxy.sinks.memory import MemorySink
from tests import scripted
from tests.openai_api import api_errors
from tests.scripted import ScriptedCloud, completion, stream
from tests.serving import Engine, call, finish, serving_with, settings
from tests.wire import cloud_backend, send

PING: Any = {
    "type": "function",
    "name": "ping",
    "description": None,
    "strict": True,
    "parameters": {
        "type": "object",
        "properties": {"host": {"type": "string"}},
        "required": ["host"],
        "additionalProperties": False,
    },
}
CALL: list[Event] = [Text("I will. "), call("ping", '{"host": "a"}'), finish()]
BAD: list[Event] = [call("ping", '{"host": 1}'), finish()]
STORED = {
    "id": "resp_cloud",
    "object": "response",
    "created_at": 1,
    "model": "gpt-4o-2024-08-06",
    "status": "completed",
    "output": [],
}


def client_of(url: str) -> AsyncOpenAI:
    return AsyncOpenAI(base_url=url, api_key="none", max_retries=0)


async def posted(url: str, **fields: object) -> Any:
    content = msgspec.json.encode({"model": "gpt-4o", "input": "Ping a.", **fields})
    return await send("POST", f"{url}/responses", content)


# ---------------------------------------------------------------- a local engine


async def test_local_engine_answers_with_text_and_a_call():
    sink = MemorySink()

    async with serving_with(settings("local"), Engine("local", CALL), sink=sink) as url:
        response = await client_of(url).responses.create(
            model="gpt-4o", input="Ping a.", tools=[PING]
        )

    message, called = response.output
    assert (response.output_text, response.status, response.model) == (
        "I will. ",
        "completed",
        "gpt-4o",
    )
    assert (called.name, called.arguments) == ("ping", '{"host": "a"}')
    assert response.usage.total_tokens == 5
    assert response.id.removeprefix("resp_headrace_") == sink.exchanges[0].id.removeprefix(
        "chatcmpl-"
    )
    assert (sink.exchanges[0].outcome, sink.exchanges[0].endpoint) == (
        "completed",
        "/chat/completions",
    )
    assert message.id != called.id


async def test_stream_holds_what_the_whole_answer_does():
    async with serving_with(settings("local"), Engine("local", CALL)) as url:
        client = client_of(url)
        whole = await client.responses.create(model="gpt-4o", input="Ping a.", tools=[PING])
        async with client.responses.stream(
            model="gpt-4o", input="Ping a.", tools=[PING]
        ) as streamed:
            kinds = [event.type async for event in streamed]
            last = await streamed.get_final_response()

    assert (last.output_text, last.output[1].arguments) == (
        whole.output_text,
        whole.output[1].arguments,
    )
    assert last.usage == whole.usage
    assert kinds[0] == "response.created"
    assert kinds[-1] == "response.completed"
    assert "response.function_call_arguments.done" in kinds


async def test_plain_stream_of_the_official_client_is_numbered():
    async with serving_with(settings("local"), Engine("local", CALL)) as url:
        answer = await client_of(url).responses.create(
            model="gpt-4o", input="Ping a.", tools=[PING], stream=True
        )
        events = [event async for event in answer]

    assert [event.sequence_number for event in events] == list(range(len(events)))


async def test_openai_would_say_it_so():
    async with serving_with(settings("local"), Engine("local", CALL)) as url:
        whole = await posted(url, tools=[PING], metadata={"a": "b"})
        streamed = await posted(url, tools=[PING], stream=True)

    blocks = streamed.content.decode().strip().split("\n\n")
    events = [msgspec.json.decode(block.partition("data: ")[2]) for block in blocks]
    assert api_errors(whole.json, "Response") == []
    assert [api_errors(event, "ResponseStreamEvent") for event in events] == [[]] * len(events)
    assert [block.partition("\n")[0] for block in blocks] == [f"event: {e['type']}" for e in events]
    assert streamed.headers["content-type"].startswith("text/event-stream")


async def test_conversation_goes_on_from_its_items():
    engine = Engine("local", CALL)

    async with serving_with(settings("local"), engine) as url:
        client = client_of(url)
        first = await client.responses.create(model="gpt-4o", input="Ping a.", tools=[PING])
        called = first.output[1]
        await client.responses.create(
            model="gpt-4o",
            tools=[PING],
            input=[
                {"role": "user", "content": "Ping a."},
                *first.output,
                {"type": "function_call_output", "call_id": called.call_id, "output": "up"},
            ],
        )

    messages = engine.asks[1].request.messages
    assert [message.role for message in messages] == ["user", "assistant", "tool"]
    assert messages[1].tool_calls[0].id == messages[2].tool_call_id


async def test_pydantic_model_is_parsed():
    class City(BaseModel):
        name: str

    engine = Engine("local", [Text('{"name":"Paris"}'), finish()])

    async with serving_with(settings("local"), engine) as url:
        parsed = await client_of(url).responses.parse(
            model="gpt-4o", input="Where?", text_format=City
        )

    assert parsed.output_parsed == City(name="Paris")
    assert engine.asks[0].request.response_format.json_schema.strict


# ---------------------------------------------------------------- rescued


@pytest.mark.parametrize("streams", [True, False])
async def test_invalid_call_is_rescued_by_the_cloud_as_a_chat(cloud: ScriptedCloud, streams: bool):
    said = {"role": "assistant", "content": "hello"}
    if streams:
        cloud.plays(
            *stream(scripted.chunk(said), scripted.chunk({}, "stop"), scripted.usage_chunk(3, 2))
        )
    else:
        cloud.plays(scripted.answer(completion(said)))
    sink = MemorySink()

    async with serving_with(
        settings("local", "cloud"), Engine("local", BAD), cloud_backend(cloud), sink=sink
    ) as url:
        response = await posted(url, tools=[PING], stream=streams)

    last = msgspec.json.decode(response.content.strip().rpartition(b"data: ")[2])
    answered = last["response"] if streams else last
    assert answered["output"][0]["content"][0]["text"] == "hello"
    assert answered["model"] == "gpt-4o"
    assert cloud.requests[0].target == "/v1/chat/completions"
    assert response.headers["x-headrace-fallback-reason"] == "schema_violation"
    assert [attempt.kind for attempt in sink.exchanges[0].attempts] == [
        "primary",
        "repair",
        "fallback",
    ]


async def test_failure_after_text_ends_the_stream_with_an_error():
    engine = Engine("local", [Text("I will. "), BackendUnavailable("gone")])
    sink = MemorySink()

    async with serving_with(settings("local"), engine, sink=sink) as url:
        answer = await client_of(url).responses.create(model="gpt-4o", input="Ping a.", stream=True)
        with pytest.raises(openai.APIError, match="gone"):
            [event async for event in answer]

    assert sink.exchanges[0].outcome == "upstream_aborted"


@pytest.mark.parametrize("said", [b"[]", b'{"choices":[]}', b'{"id":1}'])
async def test_rescuer_s_answer_that_is_no_completion_is_an_error(
    cloud: ScriptedCloud, said: bytes
):
    cloud.plays(scripted.answer(said))

    async with serving_with(
        settings("local", "cloud"), Engine("local", BAD), cloud_backend(cloud)
    ) as url:
        response = await posted(url, tools=[PING])

    assert (response.status, response.json["error"]["code"]) == (502, "backend_unavailable")


# ---------------------------------------------------------------- the cloud's own


async def test_plan_that_begins_with_a_cloud_gets_the_request_as_it_came(cloud: ScriptedCloud):
    cloud.plays(scripted.answer(STORED))
    sent = b'{ "model":"gpt-4o", "input":"hi", "x": 1.0 }'

    async with serving_with(settings("cloud"), cloud_backend(cloud)) as url:
        response = await send("POST", f"{url}/responses", sent)

    assert cloud.requests[0].body == sent
    assert cloud.requests[0].target == "/v1/responses"
    assert response.json == STORED


@pytest.mark.parametrize(
    ("fields", "reason"),
    [
        ({"previous_response_id": "resp_1"}, "unsupported_previous_response_id"),
        ({"tools": [{"type": "web_search"}]}, "unsupported_tools"),
        ({"store": True}, "unsupported_store"),
        ({"background": True}, "unsupported_background"),
        ({"invented": [1]}, "unsupported_invented"),
    ],
)
async def test_what_a_local_engine_cannot_do_goes_to_the_cloud(
    cloud: ScriptedCloud, fields: dict[str, object], reason: str
):
    cloud.plays(scripted.answer(STORED))
    local = Engine("local", CALL)

    async with serving_with(settings("local", "cloud"), local, cloud_backend(cloud)) as url:
        response = await posted(url, **fields)

    assert response.status == 200
    assert response.headers["x-headrace-fallback-reason"] == reason
    assert cloud.requests[0].json.items() >= fields.items()
    assert local.asks == []


async def test_stored_prompt_may_name_the_model(cloud: ScriptedCloud):
    cloud.plays(scripted.answer(STORED))

    async with serving_with(settings("cloud"), cloud_backend(cloud)) as url:
        response = await send("POST", f"{url}/responses", b'{"prompt":{"id":"pmpt_1"}}')

    assert response.status == 200
    assert cloud.requests[0].json == {"prompt": {"id": "pmpt_1"}}


async def test_without_a_cloud_the_field_and_the_remedy_are_told():
    async with serving_with(settings("local"), Engine("local", CALL)) as url:
        response = await posted(url, background=True)

    error = response.json["error"]
    assert (response.status, error["param"]) == (400, "background")
    assert "'openai'" in error["message"]


async def test_response_that_was_answered_here_cannot_be_continued_by_its_id():
    async with serving_with(settings("local"), Engine("local", [Text("hi"), finish()])) as url:
        client = client_of(url)
        first = await client.responses.create(model="gpt-4o", input="hi")
        with pytest.raises(openai.BadRequestError, match="not stored") as caught:
            await client.responses.create(
                model="gpt-4o", input="and?", previous_response_id=first.id
            )

    assert caught.value.param == "$.previous_response_id"


async def test_stored_response_is_fetched_and_deleted_at_the_cloud(cloud: ScriptedCloud):
    cloud.plays(scripted.answer(STORED))
    deleted = {"id": "resp_cloud", "object": "response", "deleted": True}
    cloud.plays(scripted.answer(deleted))

    async with serving_with(
        settings("local", "cloud"), Engine("local", CALL), cloud_backend(cloud)
    ) as url:
        client = client_of(url)
        fetched = await client.responses.retrieve("resp_cloud")
        await client.responses.delete("resp_cloud")

    assert fetched.id == "resp_cloud"
    assert [(r.method, r.target) for r in cloud.requests] == [
        ("GET", "/v1/responses/resp_cloud"),
        ("DELETE", "/v1/responses/resp_cloud"),
    ]


async def test_streamed_response_of_the_cloud_comes_under_the_client_s_name(cloud: ScriptedCloud):
    events = [
        {"type": "response.created", "response": STORED, "sequence_number": 0},
        {"type": "response.completed", "response": STORED, "sequence_number": 1},
    ]
    wire = [_named(event) for event in events]
    cloud.plays(*stream(*wire, done=False), b"0\r\n\r\n")

    async with serving_with(settings("cloud"), cloud_backend(cloud, {"gpt-4o": "qwen"})) as url:
        answer = await client_of(url).responses.create(model="gpt-4o", input="hi", stream=True)
        got = [event async for event in answer]

    assert [event.type for event in got] == ["response.created", "response.completed"]
    assert {event.response.model for event in got} == {"gpt-4o"}
    assert cloud.requests[0].json["model"] == "qwen"


def _named(event: dict[str, object]) -> bytes:
    return f"event: {event['type']}\n".encode() + sse.encode(msgspec.json.encode(event))


# ---------------------------------------------------------------- bad input


@pytest.mark.parametrize(
    ("fields", "status", "param"),
    [
        ({"model": "gpt-9"}, 404, "model"),
        ({"input": 1}, 400, "$.input"),
        ({"input": [{"role": "wizard", "content": "x"}]}, 400, "$.input[0].role"),
        ({"input": [{"type": "function_call_output", "call_id": "1", "output": "x"}]}, 400,
         "$.input"),
        ({"tools": [{"type": "function", "name": "f", "parameters": {"type": "objekt"}}]}, 400,
         "$.tools[0].parameters"),
        ({"tools": [PING, PING]}, 400, "$.tools[1].name"),
        ({"input": []}, 400, "$.input"),
    ],
)  # fmt: skip
async def test_malformed_request_is_told_with_its_place(
    fields: dict[str, object], status: int, param: str
):
    async with serving_with(settings("local"), Engine("local", CALL)) as url:
        response = await posted(url, **fields)

    assert (response.status, response.json["error"]["param"]) == (status, param)
    assert "$.messages" not in response.json["error"]["message"]
