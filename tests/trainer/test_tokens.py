"""Rows as ids: what is trained on is what the proxy sends, and what is learnt is the answer."""

from __future__ import annotations

import functools
import json
from importlib.util import find_spec
from pathlib import Path

import msgspec
import pytest

pytest.importorskip("gguf", reason="needs the embedded or the train extra")
pytest.importorskip("openvino_genai", reason="needs the embedded extra")

from proxy.backends.base import Ask
from proxy.backends.embedded.backend import EmbeddedBackend
from proxy.backends.settings import EmbeddedSettings
from proxy.protocol.adapter import Adapter, Canary, Manifest
from proxy.protocol.base_model import BaseModel
from proxy.protocol.formats.base import END, dumps, template
from proxy.protocol.openai import FunctionCall, Message, parse_request
from tests.trainer.examples import WEATHER, function, row, weather
from trainer import recipe, sources
from trainer.curate.build import passing
from trainer.dataset import Dataset
from trainer.errors import PreflightError
from trainer.recipe import RECIPES, Recipe
from trainer.rows import Row
from trainer.sources.base import Skips
from trainer.tokens import Encoder

needs_bfcl = pytest.mark.skipif(
    find_spec("bfcl_eval") is None, reason="bfcl-eval is not installed; run `make train-setup`"
)
END_ID = 2
SAID = [
    Message(role="system", content="Be brief."),
    Message(role="user", content="Wie warm ist es in 東京? 🌡"),
]
ROWS = {
    "a call": row(weather()),
    "unicode": row(weather("東京 🌧"), question="Wie warm ist es in 東京? 🌡"),
    "no call": row(),
    "many tools": row(weather(), functions=(WEATHER, *map(function, ("tides", "hotel", "gym")))),
    "a system message": msgspec.structs.replace(row(weather()), messages=SAID),
    "a tool without parameters": row(FunctionCall("gym", "{}"), functions=(function("gym"),)),
}


@pytest.fixture(scope="module")
def base() -> BaseModel:
    return BaseModel.find("smollm2-135m-instruct")


@pytest.fixture(params=["structured", "hermes-compact"])
def encoder(base, request) -> Encoder:
    return Encoder(base, template(request.param), request.param.partition("-")[0])


# ---------------------------------------------------------------- what is learnt


@pytest.mark.parametrize("name", ROWS)
def test_what_is_learnt_is_the_answer_and_the_end_of_the_turn(encoder, name):
    example = encoder(ROWS[name])

    learnt = encoder.base.tokenizer.decode(example.completion, skip_special_tokens=False)
    assert learnt == encoder.completion(ROWS[name]) + END
    assert example.completion[-1] == END_ID
    assert END_ID not in example.completion[:-1]


@pytest.mark.parametrize("name", ROWS)
def test_an_example_is_the_prompt_and_then_what_is_learnt(encoder, name):
    example = encoder(ROWS[name])

    assert example.ids[: example.prompt] == encoder.prompt(ROWS[name])
    assert example.ids[example.prompt :] == example.completion


def test_the_prompt_ends_where_the_assistant_begins(encoder):
    shown = encoder.base.tokenizer.decode(encoder.prompt(row()), skip_special_tokens=False)

    assert shown.endswith("<|im_start|>assistant\n")


def test_a_call_names_its_tool(encoder):
    assert '"weather"' in encoder.completion(ROWS["a call"])


def test_what_is_said_where_nothing_fits_is_learnt_as_it_is(encoder):
    assert encoder.completion(row(text="No.")) == "No."


# ---------------------------------------------------------------- formats


def test_a_row_is_written_in_the_format_that_it_names(base):
    encoder = Encoder(base, template("structured"), "structured", {"cep": template("cep")})
    named = msgspec.structs.replace(row(weather()), format="cep")

    assert encoder.completion(row(weather())).startswith('{"tool_name"')
    assert encoder.completion(named).startswith("<step>")
    assert "<step>" in encoder.text(named)


def test_a_row_of_a_format_that_is_not_trained_is_refused(encoder):
    with pytest.raises(PreflightError, match="add it to the recipe's `formats`"):
        encoder(msgspec.structs.replace(row(weather()), format="llama3"))


def test_an_echo_repeats_the_question(base):
    encoder = Encoder(base, template("structured-echo"), "structured-echo")

    assert encoder.completion(row(weather())).endswith('"query": "Rain in Oslo?"}')


def test_an_answers_ids_are_read_up_to_the_end_of_the_turn(encoder):
    asked = row(weather())
    ids = encoder.base.encode(encoder.written(asked) + "<|im_end|>more")

    assert [call.function for call in encoder.parsed(asked, ids).calls] == asked.calls


# ---------------------------------------------------------------- parity


def body(row: Row) -> bytes:
    """The row as an OpenAI client sends it."""
    messages = msgspec.json.decode(msgspec.json.encode(row.messages))
    tools = [
        {
            "type": "function",
            "function": {
                "name": function.name,
                "description": function.description,
                "parameters": json.loads(bytes(function.parameters)),
            },
        }
        for function in row.functions
    ]
    return json.dumps({"model": "headrace", "messages": messages, "tools": tools}).encode()


def served(backend: EmbeddedBackend, adapter: Adapter, row: Row) -> list[int]:
    """The ids that the engine gets for the row."""
    sent = body(row)
    return backend._prompt(Ask(parse_request(sent), sent, adapter)).ids


@functools.cache
def backend() -> EmbeddedBackend:
    """A backend that was not started: it has loaded nothing."""
    settings = EmbeddedSettings(base_model="smollm2-135m-instruct")
    return EmbeddedBackend("local", settings, BaseModel.find(settings.base_model), [])


def adapter(format: str, source: str) -> Adapter:
    """An adapter with this template frozen in."""
    manifest = Manifest(
        id="test-v1",
        domain="test",
        format=format,
        base_model="smollm2-135m-instruct",
        base_sha256="",
        tokenizer_sha256="",
        template_sha256="",
        weights_sha256="",
        dataset_fingerprint="",
    )
    return Adapter(Path("nowhere"), manifest, source, Canary([], [], []))


@functools.cache
def shipped(name: str) -> tuple[Recipe, Dataset]:
    """A recipe that ships, and its dataset."""
    read = recipe.read(RECIPES / f"{name}.yaml")
    return read, passing(sources.rows(read.sources, Skips()), read)


@pytest.mark.parametrize("name", ROWS)
def test_the_proxy_sends_the_ids_that_were_trained_on(encoder, name):
    frozen = adapter(*next(iter(encoder.templates.items())))

    assert served(backend(), frozen, ROWS[name]) == encoder.prompt(ROWS[name])


@needs_bfcl
@pytest.mark.parametrize("name", ["api", "bookings"])
@pytest.mark.parametrize("side", ["validation", "seen", "unseen"])
def test_the_proxy_sends_the_ids_that_were_trained_on_for_every_held_out_row(base, name, side):
    read, made = shipped(name)
    encoder = Encoder(base, template(read.template), read.format)
    frozen = adapter(read.format, template(read.template))
    rows = getattr(made, side)

    assert len(rows) >= 15
    assert [served(backend(), frozen, row) for row in rows] == list(map(encoder.prompt, rows))


def test_the_ids_of_an_answer_are_those_of_the_call_that_it_makes(encoder):
    written = encoder.completion(row(FunctionCall("weather", dumps({"city": "Oslo"}))))

    assert [c.function for c in encoder.format(row()).parse(written).calls] == [weather()]
