"""Engines elsewhere, from routes.yaml to the wire: settings, tokenizers, connections, waits."""

from __future__ import annotations

import socket

import pytest

pytest.importorskip("gguf", reason="needs the embedded or the train extra")

from tokenizers import AddedToken, Tokenizer

from proxy.backends import connect
from proxy.backends.base import Ask
from proxy.backends.settings import TgiSettings, VllmSettings
from proxy.backends.vocabulary import Vocabulary, VocabularyError
from proxy.catalog import BadAdapter, Base, Champions
from proxy.config import parse
from proxy.errors import BadConfig, ConnectTimeout, ContextTooLong
from proxy.protocol.champions import appoint
from proxy.protocol.openai import parse_request
from tests.engines import bundles
from tests.engines.alone import alone
from tests.engines.fronting import (
    KINDS,
    MODEL,
    ROOT,
    configuration,
    stand_in,
    tokenizer,
    vocabulary,
)
from tests.engines.standing import standing
from tests.engines.toy import do
from tests.serving import serving
from tests.wire import ask

BODY = b'{"model": "gpt-4o", "messages": [{"role": "user", "content": "Hi"}]}'
CLOSED = "http://127.0.0.1:1"


@pytest.mark.parametrize("kind", KINDS)
async def test_routes_yaml_alone_makes_an_engine_serve(kind, tmp_path):
    bundles.write(tmp_path, "bookings-v1")
    appoint(tmp_path, "bookings", "bookings-v1", "test")
    there = {"adapters": tmp_path}
    engine = stand_in(kind)
    tool = {"type": "function", "function": {"name": "Clocks_1_Now"}}
    async with standing(engine), serving(configuration(kind, engine.url, CLOSED, there)) as url:
        order = do(calls=[("Clocks_1_Now", {})])
        messages = [{"role": "user", "content": order}]
        answered = await ask(url, messages=messages, tools=[tool])

    assert answered.headers["x-headrace-adapter"] == "bookings-v1"
    assert answered.json["choices"][0]["finish_reason"] == "tool_calls"


# ---------------------------------------------------------------- settings


def complaint(backend: str) -> str:
    text = (
        f"version: 1\nmodels: [m]\nbackends: {{local: {{{backend}}}}}\n"
        "domains: {chat: {plan: [local]}}\ndefaults: {tools: chat, chat: chat}\n"
    )
    with pytest.raises(BadConfig) as caught:
        parse(text, ROOT, {})
    return str(caught.value)


@pytest.mark.parametrize(
    ("backend", "place"),
    [
        ("kind: tgi, base_model: m, replicas: []", "$.backends.local.replicas"),
        ("kind: tgi, base_model: m, replicas: ['host:80']", "$.backends.local.replicas"),
        ("kind: vllm, base_model: m, replicas: ['http://h:1/v1']", "$.backends.local.replicas"),
        ("kind: vllm, base_model: m, replicas: ['http://h:1'], mod: chat", "did you mean `mode`?"),
        ("kind: vllm, base_model: m, replicas: ['http://h:1'], stall_s: 0", ".stall_s"),
        ("kind: tgi, replicas: ['http://h:1']", "base_model"),
    ],
)
def test_settings_that_cannot_be_followed_are_named(backend, place):
    assert place in complaint(backend)


def test_paths_start_at_the_directory_of_the_file():
    settings = configuration("vllm-native", CLOSED, CLOSED, {"tokenizer": "there"})

    assert settings.backends["local"].tokenizer == ROOT / "there"
    assert settings.backends["local"].adapters == ROOT / "adapters"


def test_adapters_of_another_base_model_are_refused():
    base = Base("llama-3.1-8b-instruct", None, vocabulary().sha256)

    with pytest.raises(BadAdapter, match=r"made for smollm2.* serves llama"):
        Champions.read(ROOT / "adapters", base, ["api"])


def test_adapters_of_another_tokenizer_are_refused():
    with pytest.raises(BadAdapter, match="another tokenizer"):
        Champions.read(ROOT / "adapters", Base(MODEL, None, "0" * 64), ["api"])


# ---------------------------------------------------------------- tokenizers


def test_a_tokenizer_is_read_from_its_file_or_from_its_directory(tmp_path):
    (tmp_path / "tokenizer.json").write_text(tokenizer().to_str())

    read = [Vocabulary.read(tmp_path), Vocabulary.read(tmp_path / "tokenizer.json")]

    assert {v.sha256 for v in read} == {vocabulary().sha256}
    assert read[0].encode("Grüße <|im_end|>") == vocabulary().encode("Grüße <|im_end|>")


def test_a_tokenizer_that_cannot_be_read_is_named_with_the_remedy(tmp_path):
    (tmp_path / "tokenizer.json").write_text("{}")

    with pytest.raises(VocabularyError, match=r"tokenizer\.json: no tokenizer can be read"):
        Vocabulary.read(tmp_path)
    with pytest.raises(VocabularyError, match="give the base model's tokenizer"):
        Vocabulary.read(tmp_path / "nowhere")


def test_a_tokenizer_with_special_tokens_that_a_message_could_smuggle_is_refused():
    made = Tokenizer.from_str(tokenizer().to_str())
    made.add_special_tokens([AddedToken("[INST]", special=True)])

    with pytest.raises(VocabularyError, match=r"smuggle the special token '\[INST\]'"):
        Vocabulary(made, "mistral")


def test_a_family_whose_end_the_tokenizer_does_not_know_is_refused():
    settings = VllmSettings(replicas=[CLOSED], base_model=MODEL, plain="llama3")

    with pytest.raises(VocabularyError, match=r"no token '<\|eot_id\|>'; does `plain`"):
        connect.dialect(settings, vocabulary())


def test_a_packaged_models_tokenizer_needs_no_file():
    read = connect.vocabulary(TgiSettings(replicas=[CLOSED], base_model=MODEL))

    assert read.sha256 == vocabulary().sha256


def test_a_model_that_is_not_packaged_needs_a_file():
    with pytest.raises(VocabularyError, match=r"or name the base model's tokenizer\.json"):
        connect.vocabulary(TgiSettings(replicas=[CLOSED], base_model="llama-3.1-8b-instruct"))


# ---------------------------------------------------------------- limits


async def asked(settings: TgiSettings, body: bytes = BODY) -> None:
    backend = alone(settings, vocabulary())
    try:
        async with backend.ask(Ask(parse_request(body), body)) as reply:
            async for _ in reply.events:
                pass
    finally:
        await backend.aclose()


def tgi(url: str, **fields: object) -> TgiSettings:
    return TgiSettings(replicas=[url], base_model=MODEL, plain="hermes", **fields)


async def test_a_server_that_takes_no_connection_is_given_up_soon():
    with socket.socket() as full:
        full.bind(("127.0.0.1", 0))
        full.listen(0)
        with socket.create_connection(full.getsockname()), pytest.raises(ConnectTimeout):
            await asked(tgi(f"http://127.0.0.1:{full.getsockname()[1]}", connect_s=0.2))


@pytest.mark.parametrize("words", [300, 1_000_000])
async def test_a_prompt_that_leaves_no_room_is_not_sent(words):
    body = BODY.replace(b"Hi", b"word " * words)

    with pytest.raises(ContextTooLong):
        await asked(tgi(CLOSED, context=256), body)


async def test_an_answer_gets_the_room_that_the_prompt_leaves():
    engine = stand_in("tgi-native")
    async with standing(engine):
        await asked(tgi(engine.url, context=256, max_tokens=1000))

    (sent,) = engine.bodies
    assert sent["parameters"]["max_new_tokens"] == 256 - len(engine.prompts[0])
