"""What clients of OpenAI rely on, whoever answers: each rule once, over a real socket."""

from __future__ import annotations

from typing import Any

import msgspec
import pytest

from proxy.backends.base import Text
from proxy.backends.openai import OpenAIBackend
from proxy.errors import BackendOverloaded
from proxy.sinks.memory import MemorySink
from tests import scripted
from tests.openai_api import api_errors
from tests.scripted import Cut, ScriptedCloud, chunk, completion, stream, usage_chunk
from tests.serving import Engine, call, finish, serving_with, settings
from tests.wire import Response, ask, body, cloud_backend, events_of, raw, send

HELLO = scripted.answer(completion({"role": "assistant", "content": "hello"}))
BAD = [call("ping", '{"host":1}'), finish()]
PING_A = {"name": "ping", "arguments": '{"host":"a"}'}
FILTERED = {
    "id": "",
    "object": "chat.completion.chunk",
    "created": 0,
    "model": "",
    "choices": [],
    "prompt_filter_results": [{"prompt_index": 0, "content_filter_results": {}}],
}
KITCHEN_SINK = b"""{ "model" : "gpt-4o","messages":[
  {"role":"developer","content":"Be \\u0062rief.","name":"dev"},
  {"role":"user","content":[{"type":"text","text":"hi"},
    {"type":"image_url","image_url":{"url":"https://example.com/x.png","detail":"low"}},
    {"type":"input_audio","input_audio":{"data":"AA==","format":"wav"}},
    {"type":"file","file":{"file_id":"file-1"}}]},
  {"role":"assistant","content":null,"refusal":null,"audio":{"id":"audio_1"},"tool_calls":[
    {"id":"c1","type":"custom","custom":{"name":"sql","input":"select 1"}},
    {"id":"c2","type":"function","function":{"name":"ping","arguments":"{}"}}]},
  {"role":"tool","tool_call_id":"c1","content":[{"type":"text","text":"1"}]},
  {"role":"tool","tool_call_id":"c2","content":"up"}],
 "tools":[{"type":"custom","custom":{"name":"sql","format":{"type":"grammar","grammar":{
    "syntax":"lark","definition":"start: /./"}}}},
  {"type":"function","function":{"name":"ping","strict":true,"parameters":{"type":"object",
    "properties":{},"required":[],"additionalProperties":false}}}],
 "tool_choice":{"type":"allowed_tools","allowed_tools":{"mode":"auto","tools":[
    {"type":"function","function":{"name":"ping"}}]}},
 "n":2,"logprobs":true,"top_logprobs":2,"stop":["a","b"],"seed":7,"logit_bias":{"50256":-100},
 "temperature":0.70,"top_p":1e0,"modalities":["text","audio"],"audio":{"voice":"ash","format":"mp3"},
 "prediction":{"type":"content","content":"x"},"reasoning_effort":"low","service_tier":"flex",
 "web_search_options":{},"verbosity":"low","prompt_cache_key":"k","safety_identifier":"s",
 "store":true,"metadata":{"a":"b"},"user":"u","max_completion_tokens":9,"parallel_tool_calls":true,
 "response_format":{"type":"json_schema","json_schema":{"name":"a","schema":{"type":"object"}}},
 "frequency_penalty":-2,"presence_penalty":2.0,"not_in_the_spec":{"b":[1.10,null]}}"""


async def chunks_of(url: str, **fields: object) -> list[Any]:
    return [event async for event in events_of(url, **fields)]


async def through_cloud(cloud: ScriptedCloud, content: bytes, **names: str) -> bytes:
    """What arrives at the cloud of this body."""
    cloud.plays(HELLO)
    async with serving_with(settings("cloud"), cloud_backend(cloud, names)) as url:
        response = await send("POST", f"{url}/chat/completions", content)
    assert response.status == 200
    return cloud.requests[0].body


# ---------------------------------------------------------------- what goes to the cloud


async def test_every_field_reaches_the_cloud_byte_for_byte(cloud: ScriptedCloud):
    assert await through_cloud(cloud, KITCHEN_SINK) == KITCHEN_SINK


async def test_model_is_all_that_changes_where_it_has_another_name(cloud: ScriptedCloud):
    arrived = await through_cloud(cloud, KITCHEN_SINK, **{"gpt-4o": "qwen"})

    sent = msgspec.json.decode(KITCHEN_SINK, type=dict[str, msgspec.Raw])
    came = msgspec.json.decode(arrived, type=dict[str, msgspec.Raw])
    differing = {name for name in sent | came if sent.get(name) != came.get(name)}
    assert differing == {"model"}
    assert bytes(came["model"]) == b'"qwen"'
    assert list(came) == list(sent)


@pytest.mark.parametrize(
    "fields",
    [
        {"tool_choice": "none"},
        {"tool_choice": "auto"},
        {"tool_choice": "required"},
        {"tool_choice": {"type": "function", "function": {"name": "ping"}}},
        {"tool_choice": {"type": "custom", "custom": {"name": "sql"}}},
        {"stop": "x"},
        {"stop": ["x", "y"]},
        {"stop": None},
        {"response_format": {"type": "json_object"}},
        {"tools": None, "functions": [{"name": "f"}], "function_call": "auto"},
        {"tools": None, "functions": [{"name": "f"}], "function_call": {"name": "f"}},
        {"stream_options": None, "tools": []},
        {"max_tokens": 1, "max_completion_tokens": None},
        {"stream": False, "logit_bias": None},
    ],
)
async def test_every_form_of_a_field_is_accepted(cloud: ScriptedCloud, fields: dict[str, object]):
    content = msgspec.json.encode({"model": "gpt-4o", **body(), **fields})

    assert await through_cloud(cloud, content) == content


# ---------------------------------------------------------------- ids and errors


@pytest.mark.parametrize(
    "request_",
    [
        b"GET /v1/models HTTP/1.1\r\nhost: x",
        b"GET /nowhere HTTP/1.1\r\nhost: x",
        b"GET /v1/files HTTP/1.1\r\nhost: x",
        b"PUT /health HTTP/1.1\r\nhost: x",
        b"POST /v1/chat/completions HTTP/1.1\r\nhost: x\r\ncontent-length: 0",
        b"GET /v1/\xff HTTP/1.1\r\nhost: x",
        b"NONSENSE",
        b"GET / HTTP/1.1\r\nbad header",
        b"POST /v1/chat/completions HTTP/1.1\r\nhost: x\r\ncontent-length: x",
        b"POST /v1/chat/completions HTTP/1.1\r\nhost: x\r\ncontent-length: 5\r\n"
        b"transfer-encoding: chunked",
    ],
)
async def test_every_answer_has_an_id_and_every_error_openai_s_form(request_: bytes):
    async with serving_with(settings("local"), Engine("local", [Text("hi"), finish()])) as url:
        response = await raw(url, request_ + b"\r\nconnection: close\r\n\r\n")

    assert response.headers["x-request-id"].startswith("req_")
    assert response.headers["content-type"] == "application/json"
    assert response.status == 200 or is_openai_s_error(response)


def is_openai_s_error(response: Response) -> bool:
    error = response.json["error"]
    assert error.keys() == {"message", "type", "param", "code"}
    assert isinstance(error["message"], str) and isinstance(error["type"], str)
    assert "None" not in {*error.values()}
    assert api_errors(response.json, "ErrorResponse") == []
    return 400 <= response.status < 500


async def test_cloud_s_limits_and_times_reach_the_client(cloud: ScriptedCloud):
    told = {"x-ratelimit-remaining-tokens": "5", "openai-processing-ms": "7"}
    headers = [f"{name}: {value}" for name, value in told.items()]
    cloud.plays(scripted.answer(completion({"role": "assistant", "content": "hi"}), *headers))
    cloud.plays(scripted.error(400, "no", None, *headers))
    cloud.plays(scripted.error(429, "no", None, *headers))

    async with serving_with(settings("cloud"), cloud_backend(cloud)) as url:
        answers = [await ask(url), await ask(url), await ask(url)]

    assert [answer.status for answer in answers] == [200, 400, 429]
    assert all(answer.headers.items() >= told.items() for answer in answers)


# ---------------------------------------------------------------- retries


@pytest.mark.parametrize("plan", [("cloud",), ("local", "cloud")])
async def test_cloud_s_limit_reaches_the_client_with_the_time_to_return(
    cloud: ScriptedCloud, plan: tuple[str, ...]
):
    cloud.plays(scripted.error(429, "slow", None, "retry-after: 7", "retry-after-ms: 6500"))
    backends = {"local": Engine("local", BAD), "cloud": cloud_backend(cloud)}

    async with serving_with(settings(*plan), *(backends[name] for name in plan)) as url:
        response = await ask(url)

    assert (response.status, response.json["error"]["code"]) == (429, "rate_limit_exceeded")
    assert response.headers["retry-after"] == "7"
    assert response.headers["retry-after-ms"] == "6500"
    assert "x-should-retry" not in response.headers


@pytest.mark.parametrize(
    ("answer", "retry"),
    [
        (scripted.error(429, "slow", None), None),
        (scripted.error(429, "no money", "insufficient_quota"), "false"),
        (scripted.error(500, "oops", None), "false"),
        (scripted.error(400, "wrong", None), None),
    ],
)
async def test_client_is_kept_from_a_retry_only_where_it_is_of_no_use(
    cloud: ScriptedCloud, answer: bytes, retry: str | None
):
    cloud.plays(answer)

    async with serving_with(settings("cloud"), cloud_backend(cloud)) as url:
        response = await ask(url)

    assert response.headers.get("x-should-retry") == retry


async def test_local_engine_without_room_is_a_503_that_is_not_retried():
    engine = Engine("local", [BackendOverloaded("full")])

    async with serving_with(settings("local"), engine) as url:
        response = await ask(url)

    assert (response.status, response.headers["x-should-retry"]) == (503, "false")


# ---------------------------------------------------------------- streams


async def test_chunks_after_the_finish_reason_arrive(cloud: ScriptedCloud):
    late = chunk({}) | {"late": True}
    cloud.plays(*stream(chunk({"content": "a"}), chunk({}, "stop"), late, usage_chunk(3, 2)))

    async with serving_with(settings("cloud"), cloud_backend(cloud)) as url:
        chunks = await chunks_of(url, stream_options={"include_usage": True})

    assert chunks[-2]["late"]
    assert (chunks[-1]["choices"], chunks[-1]["usage"]["total_tokens"]) == ([], 5)


@pytest.mark.parametrize("counts", [True, False])
async def test_azure_s_chunks_without_choices_survive(cloud: ScriptedCloud, counts: bool):
    cloud.plays(*stream(FILTERED, chunk({"content": "a"}), FILTERED, chunk({}, "stop")))
    backend = OpenAIBackend("cloud", base_url=cloud.base_url, count_usage=counts)

    async with serving_with(settings("cloud"), backend) as url:
        chunks = await chunks_of(url)

    assert [one["choices"] == [] for one in chunks] == [True, False, True, False]


async def test_usage_that_only_the_proxy_asked_for_is_recorded_and_kept_from_the_client(
    cloud: ScriptedCloud,
):
    cloud.plays(*stream(chunk({"content": "a"}), chunk({}, "stop"), usage_chunk(3, 2)))
    backend = OpenAIBackend("cloud", base_url=cloud.base_url, count_usage=True)
    sink = MemorySink()

    async with serving_with(settings("cloud"), backend, sink=sink) as url:
        chunks = await chunks_of(url, stream_options={"include_obfuscation": False})

    assert cloud.requests[0].json["stream_options"] == {
        "include_obfuscation": False,
        "include_usage": True,
    }
    assert all(one["choices"] for one in chunks)
    assert sink.exchanges[0].attempts[0].usage.total_tokens == 5


@pytest.mark.parametrize("fields", [{"stream_options": {"include_usage": True}}, {"stream": False}])
async def test_usage_that_the_client_asked_for_is_not_asked_for_twice(
    cloud: ScriptedCloud, fields: dict[str, object]
):
    cloud.plays(*stream(chunk({"content": "a"}), chunk({}, "stop"), usage_chunk(3, 2)))
    backend = OpenAIBackend("cloud", base_url=cloud.base_url, count_usage=True)
    sent = msgspec.json.encode(body(stream=True) | fields)

    async with serving_with(settings("cloud"), backend) as url:
        response = await send("POST", f"{url}/chat/completions", sent)

    assert cloud.requests[0].body == sent
    assert b'"total_tokens":5' in response.content


async def test_failure_in_the_middle_is_an_event_and_no_done(cloud: ScriptedCloud):
    cloud.plays(*stream(chunk({"content": "a"}), Cut(), done=False))

    async with serving_with(settings("cloud"), cloud_backend(cloud)) as url:
        chunks = await chunks_of(url)

    assert [*chunks[-1]] == ["error"]
    assert chunks[-1]["error"].keys() == {"message", "type", "param", "code"}


# ---------------------------------------------------------------- legacy functions


async def test_legacy_request_is_answered_in_its_form():
    engine = Engine("local", [call("ping", '{"host":"a"}'), finish()])
    asked = {"tools": None, "functions": [body()["tools"][0]["function"]]}

    async with serving_with(settings("local"), engine) as url:
        whole = await ask(url, **asked)
        chunks = await chunks_of(url, **asked)

    choice = whole.json["choices"][0]
    assert (choice["message"]["function_call"], choice["finish_reason"]) == (
        PING_A,
        "function_call",
    )
    assert "tool_calls" not in choice["message"]
    deltas = [one["choices"][0]["delta"] for one in chunks]
    parts = [delta["function_call"] for delta in deltas if "function_call" in delta]
    assert parts == [{"name": "ping", "arguments": ""}, {"arguments": PING_A["arguments"]}]
    assert chunks[-1]["choices"][0]["finish_reason"] == "function_call"
    assert api_errors(whole.json, "CreateChatCompletionResponse") == []
    assert [e for c in chunks if (e := api_errors(c, "CreateChatCompletionStreamResponse"))] == []


async def test_legacy_history_reaches_a_local_engine_as_calls_and_results():
    engine = Engine("local", [Text("It is up."), finish()])
    history = [
        {"role": "user", "content": "Ping a."},
        {"role": "assistant", "content": None, "function_call": PING_A},
        {"role": "function", "name": "ping", "content": "up"},
    ]

    async with serving_with(settings("local"), engine) as url:
        response = await ask(url, tools=None, messages=history)

    assert response.json["choices"][0]["message"]["content"] == "It is up."
    roles = [message.role for message in engine.asks[0].request.messages]
    assert roles == ["user", "assistant", "tool"]


async def test_invalid_legacy_call_after_text_is_mended_by_the_cloud_s(cloud: ScriptedCloud):
    opening = {"role": "assistant", "function_call": {"name": "ping", "arguments": '{"host"'}}
    rest = {"function_call": {"arguments": ':"a"}'}}
    cloud.plays(*stream(chunk(opening), chunk(rest), chunk({}, "function_call")))
    local = Engine("local", [Text("I will."), *BAD])
    asked = {"tools": None, "functions": [body()["tools"][0]["function"]]}

    async with serving_with(settings("local", "cloud"), local, cloud_backend(cloud)) as url:
        chunks = await chunks_of(url, **asked)

    deltas = [one["choices"][0]["delta"] for one in chunks]
    said = [delta["function_call"] for delta in deltas if "function_call" in delta]
    assert "".join(part["arguments"] for part in said) == PING_A["arguments"]
    assert chunks[-1]["choices"][0]["finish_reason"] == "function_call"
