"""What is given again, what is not, and that a client cannot tell."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

import msgspec
import openai
import pytest

from proxy import sse
from proxy.backends.base import Text
from proxy.errors import BadConfig
from proxy.sinks.memory import MemorySink
from tests.scripted import Cut, ScriptedCloud, answer, chunk, completion, error, stream, usage_chunk
from tests.serving import Engine, call, finish, serving_with, settings, text
from tests.wire import Response, ask, body, cloud_backend, send

CALL = [call("ping", '{"host":"a"}'), finish("tool_calls")]
OTHER = [call("ping", '{"host":"b"}'), finish("tool_calls")]
BROKEN = [call("ping", '{"host":1}'), finish("tool_calls")]
HI = completion({"role": "assistant", "content": "hi"})


def local(*answers: list[object]) -> Engine:
    """An engine that gives these answers, one after the other, the last one for ever."""
    return Engine("local", answers[0], then=answers[1:])


@asynccontextmanager
async def caching(
    *backends: object,
    cache: str = "cache: {}",
    verify: str = "enforce",
    extra: str = "",
    sink: MemorySink | None = None,
) -> AsyncIterator[str]:
    config = settings(*(b.name for b in backends), policy=cache, extra=extra, verify=verify)
    async with serving_with(config, *backends, sink=sink) as url:
        yield url


async def same(url: str, headers: dict[str, str] | None = None, **fields: object) -> Response:
    """The answer to a request that asks for the same one each time."""
    return await ask(url, headers, **({"temperature": 0} | fields))


def said(response: Response) -> object:
    """What the client holds in the end, be it from a completion or from its chunks."""
    if response.headers["content-type"] == "application/json":
        choice = response.json["choices"][0]
        calls = choice["message"].get("tool_calls", [])
        text = choice["message"]["content"]
        reason = choice["finish_reason"]
    else:
        events = [msgspec.json.decode(e) for e in sse.EventDecoder().feed(response.content)[:-1]]
        choices = [choice for event in events for choice in event["choices"]]
        calls = _joined(choices)
        text = "".join(c["delta"].get("content") or "" for c in choices) or None
        reason = choices[-1]["finish_reason"]
    return text, [(c["function"]["name"], c["function"]["arguments"]) for c in calls], reason


def _joined(choices: list[dict[str, dict[str, list[dict[str, dict[str, str]]]]]]) -> list[object]:
    deltas = [delta for choice in choices for delta in choice["delta"].get("tool_calls", [])]
    if not deltas:
        return []
    arguments = "".join(delta["function"]["arguments"] for delta in deltas)
    return [{"function": {"name": deltas[0]["function"]["name"], "arguments": arguments}}]


# ---------------------------------------------------------------- hits


async def test_same_request_gets_the_same_answer_again():
    engine = local(CALL, OTHER)

    async with caching(engine) as url:
        first, second = await same(url), await same(url)

    assert said(second) == said(first) == (None, [("ping", '{"host":"a"}')], "tool_calls")
    assert second.json["usage"] == first.json["usage"]
    assert second.json["model"] == "gpt-4o"
    assert first.headers["x-headrace-cache"] == "miss"
    assert second.headers["x-headrace-cache"] == "hit"
    assert second.headers["x-headrace-backend"] == "cache"
    assert len(engine.asks) == 1


async def test_each_hit_has_an_id_of_its_own():
    async with caching(local(CALL)) as url:
        first, second, third = await same(url), await same(url), await same(url)

    assert len({first.json["id"], second.json["id"], third.json["id"]}) == 3


async def test_hit_is_recorded_as_an_attempt_of_the_cache():
    sink = MemorySink()

    async with caching(local(CALL), sink=sink) as url:
        await same(url)
        await same(url)

    first, second = sink.exchanges
    assert [attempt.backend for attempt in first.attempts] == ["local"]
    assert [attempt.backend for attempt in second.attempts] == ["cache"]
    assert second.outcome == "completed"
    assert second.attempts[0].answer.tool_calls == first.attempts[0].answer.tool_calls


@pytest.mark.parametrize("streamed", [(True, True), (True, False), (False, True)])
async def test_form_of_the_answer_does_not_matter(streamed: tuple[bool, bool]):
    engine = local(CALL, OTHER)
    options = {"stream_options": {"include_usage": True}}
    asked = [{"stream": s} | (options if s else {}) for s in streamed]

    async with caching(engine) as url:
        first = await same(url, **asked[0])
        second = await same(url, **asked[1])

    assert second.headers["x-headrace-cache"] == "hit"
    assert said(second) == said(first) == (None, [("ping", '{"host":"a"}')], "tool_calls")


@pytest.mark.parametrize("streamed", [False, True])
async def test_clouds_answers_are_given_again(cloud: ScriptedCloud, streamed: bool):
    cloud.plays(
        *stream(
            chunk({"role": "assistant", "content": "h"}),
            chunk({"content": "i"}),
            chunk({}, "stop"),
            usage_chunk(3, 2),
        )
    )
    options = {"include_usage": True}

    async with caching(cloud_backend(cloud)) as url:
        first = await same(url, stream=True, stream_options=options)
        second = await same(url, stream=streamed)

    assert said(first) == said(second) == ("hi", [], "stop")
    assert second.headers["x-headrace-backend"] == "cache"
    assert len(cloud.requests) == 1


async def test_sdk_reads_a_hit(cloud: ScriptedCloud):
    cloud.plays(answer(HI))

    async with (
        caching(cloud_backend(cloud)) as url,
        openai.AsyncOpenAI(base_url=url, api_key="none") as client,
    ):
        asked = {"model": "gpt-4o", "messages": [{"role": "user", "content": "x"}], "seed": 1}
        first = await client.chat.completions.create(**asked)
        async with client.chat.completions.stream(**asked) as events:
            second = await events.get_final_completion()

    assert first.choices[0].message.content == second.choices[0].message.content == "hi"
    assert len(cloud.requests) == 1


@pytest.mark.parametrize(
    "change",
    [
        {"user": "other"},
        {"metadata": {"run": "2"}},
        {"stream": True},
        {"stream": True, "stream_options": {"include_usage": True}},
    ],
)
async def test_what_changes_no_answer_is_no_other_request(change: dict[str, object]):
    engine = local(CALL)

    async with caching(engine) as url:
        await same(url, user="one", metadata={"run": "1"})
        second = await same(url, **change)

    assert second.headers["x-headrace-cache"] == "hit"


async def test_order_of_keys_and_white_space_do_not_matter():
    fields = body(temperature=0)
    turned = dict(reversed(fields.items()))

    async with caching(local(CALL)) as url:
        await send("POST", f"{url}/chat/completions", msgspec.json.encode(fields))
        spaced = msgspec.json.format(msgspec.json.encode(turned), indent=4)
        second = await send("POST", f"{url}/chat/completions", spaced)

    assert second.headers["x-headrace-cache"] == "hit"


# ---------------------------------------------------------------- no hits


@pytest.mark.parametrize(
    "change",
    [
        {"messages": [{"role": "user", "content": "Ping b."}]},
        {"temperature": 0, "seed": 2},
        {"max_tokens": 5},
        {"model": "headrace"},
        {"tool_choice": "required"},
    ],
)
async def test_another_request_gets_another_answer(change: dict[str, object]):
    engine = local(CALL, OTHER)

    async with caching(engine) as url:
        await same(url)
        second = await same(url, **change)

    assert said(second) == (None, [("ping", '{"host":"b"}')], "tool_calls")
    assert second.headers["x-headrace-cache"] == "miss"


@pytest.mark.parametrize(
    "asked", [{}, {"temperature": 0.1}, {"temperature": 0, "n": 2}, {"seed": 1, "logprobs": True}]
)
async def test_request_for_a_new_answer_gets_one(cloud: ScriptedCloud, asked: dict[str, object]):
    cloud.plays(answer(HI))

    async with caching(cloud_backend(cloud)) as url:
        await ask(url, **asked)
        second = await ask(url, **asked)

    assert "x-headrace-cache" not in second.headers
    assert len(cloud.requests) == 2


async def test_nothing_is_given_again_unless_it_is_asked_for():
    engine = local(CALL)

    async with caching(engine, cache="") as url:
        await same(url)
        second = await same(url)

    assert "x-headrace-cache" not in second.headers
    assert len(engine.asks) == 2


async def test_tenants_do_not_see_each_others_answers():
    engine = local(CALL)
    one, two = "{key: key-one-1234567890, tenant: one}", "{key: key-two-1234567890, tenant: two}"
    keys = f"auth: {{keys: [{one}, {two}]}}"

    async with caching(engine, extra=keys) as url:
        await same(url, {"authorization": "Bearer key-one-1234567890"})
        other = await same(url, {"authorization": "Bearer key-two-1234567890"})
        again = await same(url, {"authorization": "Bearer key-one-1234567890"})

    assert other.headers["x-headrace-cache"] == "miss"
    assert again.headers["x-headrace-cache"] == "hit"


async def test_other_backends_give_their_own_answer(monkeypatch: pytest.MonkeyPatch):
    first, second = local(CALL), Engine("second", OTHER)

    async with caching(first, second) as url:
        await same(url)
        monkeypatch.setattr(first, "lacks", lambda request: "tools")
        answered = await same(url)

    assert answered.headers["x-headrace-cache"] == "miss"
    assert answered.headers["x-headrace-backend"] == "second"


# ---------------------------------------------------------------- what is kept


async def test_answer_that_breaks_its_schema_is_not_kept():
    engine = local(BROKEN, CALL)

    async with caching(engine, verify="observe") as url:
        await same(url)
        second = await same(url)

    assert second.headers["x-headrace-cache"] == "miss"


async def test_clouds_answer_that_breaks_its_schema_is_not_kept(cloud: ScriptedCloud):
    wrong = {"id": "c", "type": "function", "function": {"name": "ping", "arguments": "{}"}}
    message = {"role": "assistant", "content": None, "tool_calls": [wrong]}
    cloud.plays(answer(completion(message, "tool_calls")))

    async with caching(cloud_backend(cloud)) as url:
        await same(url)
        second = await same(url)

    assert second.headers["x-headrace-cache"] == "miss"


@pytest.mark.parametrize(
    "message",
    [
        {"role": "assistant", "content": None, "refusal": "No."},
        {"role": "assistant", "content": "hi", "reasoning_content": "They greet."},
        {"role": "assistant", "content": "hi", "annotations": [{"type": "url_citation"}]},
    ],
)
async def test_answer_that_says_more_than_we_can_say_again_is_not_kept(
    cloud: ScriptedCloud, message: dict[str, object]
):
    cloud.plays(answer(completion(message)))

    async with caching(cloud_backend(cloud)) as url:
        await same(url)
        second = await same(url)

    assert second.headers["x-headrace-cache"] == "miss"
    assert second.json["choices"][0]["message"] == message


async def test_answer_as_openai_writes_it_is_kept(cloud: ScriptedCloud):
    nothing = {"refusal": None, "annotations": [], "audio": None}
    cloud.plays(answer(completion({"role": "assistant", "content": "hi"} | nothing)))

    async with caching(cloud_backend(cloud)) as url:
        await same(url)
        second = await same(url)

    assert second.headers["x-headrace-cache"] == "hit"


async def test_answer_that_was_cut_is_not_kept(cloud: ScriptedCloud):
    begun = chunk({"role": "assistant", "content": "h"})
    cloud.plays(*stream(begun, Cut(), done=False))
    cloud.plays(*stream(begun, chunk({"content": "i"}, "stop")))

    async with caching(cloud_backend(cloud)) as url:
        await same(url, stream=True)
        second = await same(url, stream=True)
        third = await same(url, stream=True)

    assert second.headers["x-headrace-cache"] == "miss"
    assert third.headers["x-headrace-cache"] == "hit"
    assert said(third) == ("hi", [], "stop")


async def test_error_is_not_kept(cloud: ScriptedCloud):
    cloud.plays(error(400, "odd", "odd"))
    cloud.plays(answer(HI))

    async with caching(cloud_backend(cloud)) as url:
        refused, second = await same(url), await same(url)

    assert refused.status == 400
    assert second.status == 200


async def test_whole_answer_is_not_made_of_a_stream_that_did_not_say_its_usage(
    cloud: ScriptedCloud,
):
    cloud.plays(*stream(chunk({"role": "assistant", "content": "hi"}, "stop")))
    cloud.plays(answer(HI))

    async with caching(cloud_backend(cloud)) as url:
        await same(url, stream=True)
        streamed = await same(url, stream=True)
        whole = await same(url)

    assert streamed.headers["x-headrace-cache"] == "hit"
    assert whole.headers["x-headrace-cache"] == "miss"
    assert whole.json["usage"]["total_tokens"] == 5


# ---------------------------------------------------------------- bounds


async def test_oldest_answers_make_room():
    long = [Text("x" * 3000), finish()]
    messages = [[{"role": "user", "content": f"{n}"}] for n in (1, 2)]

    async with caching(local(long), cache="cache: {max_mib: 0.005}") as url:
        await same(url, messages=messages[0])
        await same(url, messages=messages[1])
        first = await same(url, messages=messages[0])
        third = await same(url, messages=messages[0])

    assert first.headers["x-headrace-cache"] == "miss"
    assert third.headers["x-headrace-cache"] == "hit"


async def test_answer_that_is_larger_than_the_cache_passes():
    long = [*text("x" * 9000), finish()]

    async with caching(local(long), cache="cache: {max_mib: 0.005}") as url:
        await same(url)
        second = await same(url)

    assert second.status == 200
    assert second.headers["x-headrace-cache"] == "miss"


async def test_old_answers_are_asked_for_anew():
    async with caching(local(CALL), cache="cache: {ttl_s: 0.05}") as url:
        await same(url)
        await asyncio.sleep(0.1)
        old = await same(url)

    assert old.headers["x-headrace-cache"] == "miss"


def test_settings_must_leave_room():
    with pytest.raises(BadConfig, match="max_mib"):
        settings("local", policy="cache: {max_mib: 0}")


# ---------------------------------------------------------------- what clients want of it


async def test_skip_asks_past_the_cache_and_leaves_it_as_it_is():
    engine = local(CALL, OTHER, OTHER)

    async with caching(engine) as url:
        await same(url)
        skipped = await same(url, {"x-headrace-cache": "skip"})
        third = await same(url)

    assert said(skipped) == (None, [("ping", '{"host":"b"}')], "tool_calls")
    assert said(third) == (None, [("ping", '{"host":"a"}')], "tool_calls")


async def test_refresh_keeps_the_new_answer():
    engine = local(CALL, OTHER)

    async with caching(engine) as url:
        await same(url)
        refreshed = await same(url, {"x-headrace-cache": "refresh"})
        third = await same(url)

    assert refreshed.headers["x-headrace-cache"] == "miss"
    assert said(third) == said(refreshed) == (None, [("ping", '{"host":"b"}')], "tool_calls")


async def test_unknown_wish_is_told():
    async with caching(local(CALL)) as url:
        response = await same(url, {"x-headrace-cache": "no"})

    assert response.status == 400
    assert "`skip` or `refresh`" in response.json["error"]["message"]


async def test_admin_who_names_a_backend_gets_its_answer():
    engine = local(CALL, OTHER)
    keys = "auth: {keys: [{key: key-one-1234567890, tenant: one, admin: true}]}"
    admin = {"authorization": "Bearer key-one-1234567890"}

    async with caching(engine, extra=keys) as url:
        await same(url, admin)
        named = await same(url, admin | {"x-headrace-backend": "local"})

    assert said(named) == (None, [("ping", '{"host":"b"}')], "tool_calls")
