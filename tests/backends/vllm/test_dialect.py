"""vLLM beside its answers: adapters that come and go, canaries, errors; what SGLang has else."""

from __future__ import annotations

from collections.abc import AsyncIterator, Sequence

import msgspec
import pytest

pytest.importorskip("gguf", reason="needs the embedded or the train extra")

from proxy.backends import http
from proxy.backends.dialect import Conversation, Generation, Prompt, Sampling
from proxy.backends.vllm import errors
from proxy.backends.vllm.dialect import Vllm
from proxy.errors import (
    AdapterMissing,
    BackendError,
    BackendOverloaded,
    BackendRefused,
    BackendUnavailable,
    ContextTooLong,
)
from proxy.protocol.adapter import Adapter
from proxy.protocol.formats import FORMATS
from proxy.protocol.openai import Function, parse_request
from tests.engines.fronting import ROOT, champions, stand_in, tokenizer, vocabulary
from tests.engines.standing import standing
from tests.engines.vllm_stand_in import VllmStandIn
from tests.scripted import ScriptedCloud, chunk, stream

END_ID = 2
WEATHER = Function(
    "weather", None, msgspec.Raw(b'{"type": "object", "properties": {"a": {"type": "integer"}}}')
)


@pytest.fixture
async def engine() -> AsyncIterator[VllmStandIn]:
    made = stand_in("vllm-native")
    assert isinstance(made, VllmStandIn)
    async with standing(made):
        yield made


@pytest.fixture
async def session() -> AsyncIterator[http.Session]:
    async with http.Session(1) as opened:
        yield opened


def vllm(flavor: str = "vllm") -> Vllm:
    return Vllm(base="base", adapters_there=str(ROOT / "adapters"), end=END_ID, flavor=flavor)


def adapter(id: str = "api-v1") -> Adapter:
    return champions().by_id[id]


def generation(**fields: object) -> Generation:
    prompt = Prompt("Hi", vocabulary().encode("Hi"))
    return Generation(
        **{"adapter": None, "prompt": prompt, "sampling": Sampling(max_tokens=4)} | fields
    )


async def outputs(answer: AsyncIterator[Sequence[object]]) -> list[object]:
    return [output async for some in answer for output in some]


# ---------------------------------------------------------------- adapters


async def test_the_adapters_are_those_that_the_server_lists(engine, session):
    assert await vllm().adapters(session, engine.url) == {"api-v1", "bookings-v1"}


async def test_an_adapter_is_loaded_from_the_servers_own_path(engine, session):
    del engine.toy.adapters["api-v1"]

    await vllm().load(session, engine.url, adapter())

    assert engine.loads == [str(ROOT / "adapters" / "api-v1")]
    assert await vllm().adapters(session, engine.url) == {"api-v1", "bookings-v1"}


async def test_what_is_loaded_is_not_loaded_again(engine, session):
    await vllm().load(session, engine.url, adapter())

    assert engine.loads == []


async def test_an_adapter_that_cannot_be_loaded_is_an_error(engine, session):
    missing = msgspec.structs.replace(adapter(), path=ROOT / "adapters" / "nowhere")
    del engine.toy.adapters["api-v1"]

    with pytest.raises(BackendError, match=r"404.*No adapter found"):
        await vllm().load(session, engine.url, missing)


async def test_an_adapter_is_unloaded_once(engine, session):
    await vllm().unload(session, engine.url, "api-v1")
    await vllm().unload(session, engine.url, "api-v1")

    assert await vllm().adapters(session, engine.url) == {"bookings-v1"}


async def test_an_adapter_that_is_not_loaded_is_missing_and_not_answered_by_the_base(
    engine, session
):
    with pytest.raises(AdapterMissing):
        await outputs(vllm().generate(session, engine.url, generation(adapter="geo-v7")))


async def test_a_canary_is_the_ids_without_the_end(engine, session):
    prompt = vocabulary().encode("Hi")

    ids = await vllm().greedy(session, engine.url, "api-v1", prompt, 100)

    assert tokenizer().decode(ids) == engine.toy.words("api-v1", prompt)
    assert len(await vllm().greedy(session, engine.url, "api-v1", prompt, 5)) == 5


async def test_health_is_what_the_server_says(engine, session):
    assert await vllm().healthy(session, engine.url)
    engine.is_sick = True
    assert not await vllm().healthy(session, engine.url)
    assert not await vllm().healthy(session, "http://127.0.0.1:1")


# ---------------------------------------------------------------- tenants


async def test_tenants_do_not_share_the_prefix_cache(engine, session):
    for tenant in ("acme", "globex: Ünited/Inc." * 40, "acme", ""):
        await outputs(vllm().generate(session, engine.url, generation(tenant=tenant)))

    acme, globex, again, nobody = (body.get("cache_salt") for body in engine.bodies)
    assert acme == again != globex
    assert nobody is None


# ---------------------------------------------------------------- constraints


@pytest.mark.parametrize(
    ("required", "kind"), [(False, "triggered_tags"), (True, "triggered_tags")]
)
async def test_a_call_is_held_to_its_tools_schema(engine, session, required, kind):
    constraint = FORMATS["structured"].constraint([WEATHER], required, many=False)

    await outputs(vllm().generate(session, engine.url, generation(constraint=constraint)))

    sent = msgspec.json.decode(engine.bodies[0]["structured_outputs"]["structural_tag"])
    assert sent["format"]["type"] == "triggered_tags"
    assert sent["format"]["at_least_one"] is required
    assert sent["format"]["triggers"] == ['{"tool_name"']
    assert sent["format"]["tags"][0]["content"]["grammar"].startswith('root ::= ": ')


async def test_required_calls_that_may_be_many_are_separated(engine, session):
    constraint = FORMATS["hermes"].constraint([WEATHER, WEATHER], required=True, many=True)

    await outputs(vllm().generate(session, engine.url, generation(constraint=constraint)))

    sent = msgspec.json.decode(engine.bodies[0]["structured_outputs"]["structural_tag"])
    assert sent["format"]["type"] == "tags_with_separator"
    assert len(sent["format"]["tags"]) == 2


async def test_chat_asks_for_strict_tools_where_answers_are_constrained(engine, session):
    tools = [{"type": "function", "function": {"name": "weather"}}]
    messages = [{"role": "user", "content": "Hi"}]
    asked = {"model": "gpt-4o", "messages": messages, "tools": tools}
    conversation = Conversation(
        adapter="bookings-v1",
        request=parse_request(msgspec.json.encode(asked)),
        sampling=Sampling(max_tokens=4),
        constrain=True,
    )

    await outputs(vllm().chat(session, engine.url, conversation))

    assert engine.bodies[0]["tools"][0]["function"]["strict"] is True


# ---------------------------------------------------------------- SGLang


async def test_sglang_names_an_adapter_after_its_base(cloud: ScriptedCloud, session):
    cloud.plays(*stream(chunk({"content": "Hi"}, "stop")))
    constraint = FORMATS["structured"].constraint([WEATHER], required=True, many=False)
    asked = generation(adapter="api-v1", constraint=constraint)

    await outputs(vllm("sglang").generate(session, cloud.base_url.removesuffix("/v1"), asked))

    assert cloud.requests[0].json["model"] == "base:api-v1"
    assert "structured_outputs" not in cloud.requests[0].json


async def test_sglang_loads_at_a_path_of_its_own(cloud: ScriptedCloud, session):
    cloud.plays(*stream())

    await vllm("sglang").load(session, cloud.base_url.removesuffix("/v1"), adapter())

    assert cloud.requests[0].target == "/load_lora_adapter"
    assert cloud.requests[0].json["lora_name"] == "api-v1"


# ---------------------------------------------------------------- errors


@pytest.mark.parametrize(
    ("status", "message", "kind"),
    [
        (400, "This model's maximum context length is 8192 tokens.", ContextTooLong),
        (400, "top_p must be in (0, 1]", BackendRefused),
        (400, "Invalid grammar specification", BackendError),
        (401, "Unauthorized", BackendUnavailable),
        (404, "The model `x` does not exist.", AdapterMissing),
        (429, "", BackendOverloaded),
        (500, "EngineCore died", BackendUnavailable),
        (503, "", BackendUnavailable),
    ],
)
@pytest.mark.parametrize("flat", [True, False])
def test_an_error_goes_to_who_can_do_something_about_it(status, message, kind, flat):
    about = {"message": message, "type": "BadRequestError", "param": None, "code": status}
    body = msgspec.json.encode({"object": "error", **about} if flat else {"error": about})

    assert type(errors.of_response(status, "application/json", body)) is kind


@pytest.mark.parametrize("body", [b"", b"\xff", b"[]", b'{"error": "gone"}', b"{" * 1000])
def test_an_error_of_any_kind_is_no_surprise(body):
    assert type(errors.of_response(502, "text/html", body)) is BackendUnavailable


async def test_an_error_in_the_middle_of_a_stream_is_raised(cloud: ScriptedCloud, session):
    about = {"message": "EngineCore died", "code": 500}
    cloud.plays(*stream(chunk({"content": "Hi"}), {"error": about}))

    with pytest.raises(BackendUnavailable):
        await outputs(vllm().generate(session, cloud.base_url.removesuffix("/v1"), generation()))
