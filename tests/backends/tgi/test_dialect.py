"""TGI beside its answers: canaries, ends it does not know, and what it puts before a prompt."""

from __future__ import annotations

from collections.abc import AsyncIterator, Sequence

import msgspec
import pytest

pytest.importorskip("gguf", reason="needs the embedded or the train extra")

from proxy.backends import http
from proxy.backends.dialect import End, Generation, Piece, Prompt, Sampling
from proxy.backends.tgi.dialect import Tgi
from proxy.backends.vocabulary import Vocabulary
from proxy.errors import BackendError, BackendOverloaded, BackendUnavailable
from proxy.protocol.formats.base import END
from proxy.protocol.formats.constraint import JsonObject
from tests.engines.fronting import champions, stand_in, tokenizer, vocabulary
from tests.engines.standing import standing
from tests.engines.test_parity import llamas
from tests.engines.tgi_stand_in import TgiStandIn
from tests.scripted import ScriptedCloud, stream

JSON = b'{"type": "object", "properties": {"a": {"type": "string"}}}'


@pytest.fixture
async def engine() -> AsyncIterator[TgiStandIn]:
    made = stand_in("tgi-native")
    assert isinstance(made, TgiStandIn)
    async with standing(made):
        yield made


@pytest.fixture
async def session() -> AsyncIterator[http.Session]:
    async with http.Session(1) as opened:
        yield opened


def generation(text: str = "Hi", **fields: object) -> Generation:
    prompt = Prompt(text, vocabulary().encode(text))
    return Generation(
        **{"adapter": None, "prompt": prompt, "sampling": Sampling(max_tokens=99)} | fields
    )


async def outputs(answer: AsyncIterator[Sequence[object]]) -> list[object]:
    return [output async for some in answer for output in some]


def token(text: str, special: bool = False) -> dict[str, object]:
    return {"token": {"id": 1, "text": text, "logprob": -0.5, "special": special}}


async def test_a_canary_is_the_ids_without_the_end(engine, session):
    prompt = vocabulary().encode("<|im_start|>user\nHi<|im_end|>\n")

    ids = await Tgi(vocabulary(), END).greedy(session, engine.url, "api-v1", prompt, 100)

    assert engine.prompts == [prompt]
    assert tokenizer().decode(ids) == engine.toy.words("api-v1", prompt)


async def test_a_canary_tells_an_adapter_that_is_not_loaded_from_one_that_is(engine, session):
    tgi, prompt = Tgi(vocabulary(), END), vocabulary().encode("Hi")

    base = await tgi.greedy(session, engine.url, None, prompt, 16)

    assert await tgi.greedy(session, engine.url, "geo-v7", prompt, 16) == base
    assert await tgi.greedy(session, engine.url, "api-v1", prompt, 16) != base


async def test_tgi_lists_and_loads_no_adapters(engine, session):
    tgi = Tgi(vocabulary(), END)

    assert await tgi.adapters(session, engine.url) is None
    with pytest.raises(BackendError, match="restart it with the new list"):
        await tgi.load(session, engine.url, champions().by_id["api-v1"])
    assert not tgi.loads_at_run_time


async def test_health_is_what_the_server_says(engine, session):
    assert await Tgi(vocabulary(), END).healthy(session, engine.url)
    engine.is_sick = True
    assert not await Tgi(vocabulary(), END).healthy(session, engine.url)


async def test_special_tokens_are_dropped_and_the_turns_end_ends_the_answer(
    cloud: ScriptedCloud, session
):
    events = [token("<|x|>", True), token("Hi"), token(END, True), token("and on")]
    cloud.plays(*stream(*(event | {"details": None} for event in events)))

    said = await outputs(Tgi(vocabulary(), END).generate(session, cloud.base_url, generation()))

    assert said == [Piece("Hi", 1, -0.5), End(reason="stop")]


@pytest.mark.parametrize(
    ("error_type", "kind"), [("overloaded", BackendOverloaded), ("generation", BackendUnavailable)]
)
async def test_an_error_in_the_middle_of_a_stream_is_raised(
    cloud: ScriptedCloud, session, error_type, kind
):
    cloud.plays(*stream(token("Hi"), {"error": "CUDA", "error_type": error_type}))

    with pytest.raises(kind):
        await outputs(Tgi(vocabulary(), END).generate(session, cloud.base_url, generation()))


@pytest.mark.parametrize("event", [b"data: nonsense\n\n", b'data: {"token": 7}\n\n'])
async def test_an_event_that_cannot_be_read_ends_the_answer(cloud: ScriptedCloud, session, event):
    cloud.plays(*stream(token("Hi"), event))

    with pytest.raises(BackendUnavailable, match="cannot be read"):
        await outputs(Tgi(vocabulary(), END).generate(session, cloud.base_url, generation()))


async def test_a_prompt_goes_without_the_token_that_tgi_puts_before_it(engine, session):
    words = Vocabulary(llamas(), "llama")
    assert words.beginning == "<|begin_of_text|>"

    await outputs(Tgi(words, END).generate(session, engine.url, generation("<|begin_of_text|>Hi")))

    assert engine.bodies[0]["inputs"] == "Hi"


async def test_a_template_that_leaves_that_token_out_is_not_served(engine, session):
    with pytest.raises(BackendUnavailable, match="begins every prompt with"):
        await outputs(
            Tgi(Vocabulary(llamas(), "llama"), END).generate(session, engine.url, generation())
        )


async def test_a_harmless_schema_is_sent_as_a_grammar_and_another_is_not(engine, session):
    tgi = Tgi(vocabulary(), END)

    for schema in (JSON, b'{"type": "object"}'):
        asked = generation(constraint=JsonObject(msgspec.Raw(schema)))
        await outputs(tgi.generate(session, engine.url, asked))

    first, second = (body["parameters"] for body in engine.bodies)
    assert first["grammar"]["type"] == "json"
    assert "grammar" not in second
