"""What would train something else than is meant is found before it costs anything."""

from __future__ import annotations

from pathlib import Path

import msgspec
import pytest

pytest.importorskip("peft", reason="needs the train extra")

from proxy.protocol.base_model import BaseModel
from proxy.protocol.formats.base import template
from proxy.protocol.openai import Function, FunctionCall, Message, ToolCall
from tests.trainer.bases import llama
from tests.trainer.examples import WEATHER, function, row, weather
from trainer import recipe
from trainer.errors import PreflightError
from trainer.preflight import Check, checks, require
from trainer.recipe import LoraSettings, Recipe, TrainingSettings
from trainer.rows import Row
from trainer.tokens import Encoder

RECIPE = msgspec.convert(
    {
        "domain": "test",
        "format": "structured",
        "template": "structured",
        "sources": [{"kind": "bfcl", "categories": []}],
    },
    Recipe,
)
SAID = [
    Message(role="system", content="Be brief."),
    Message(role="user", content="Wie warm ist es in 東京? 🌡"),
    Message(role="assistant", content=None, tool_calls=[ToolCall(id="a", function=weather())]),
    Message(role="tool", tool_call_id="a", content='{"degrees": 3}'),
    Message(role="user", content="And tomorrow?"),
]
ROWS = [
    row(weather()),
    row(),
    row(weather("東京 🌧"), question="Wie warm ist es in 東京? 🌡"),
    row(weather(), functions=(WEATHER, *map(function, ("tides", "hotel", "gym")))),
    row(FunctionCall("gym", "{}"), functions=(Function("gym"),)),
    msgspec.structs.replace(row(weather()), messages=SAID),
    msgspec.structs.replace(row(text="Hello."), functions=[]),
]


@pytest.fixture(scope="module")
def base() -> BaseModel:
    return BaseModel.find("smollm2-135m-instruct")


def checked(base: BaseModel, *rows: Row, run: Path = Path(), **changes: object) -> dict[str, Check]:
    """All checks by name, of these rows under a changed recipe."""
    changed = msgspec.structs.replace(RECIPE, **changes)
    found = checks(changed, Encoder.of(changed, base), rows or ROWS, run)
    return {check.name: check for check in found}


def faults(base: BaseModel, *rows: Row, **changes: object) -> dict[str, str]:
    """What is wrong: check → what it tells."""
    return {name: c.told for name, c in checked(base, *rows, **changes).items() if not c.ok}


# ---------------------------------------------------------------- rows


@pytest.mark.parametrize("name", ["structured", "structured-echo", "hermes", "cep"])
def test_sound_rows_pass(base, name):
    assert faults(base, format=name, template=name) == {}


def test_sound_rows_pass_in_llama3s_turns(tmp_path):
    base = llama(tmp_path)

    assert faults(base, format="llama3", template="llama3") == {}


@pytest.mark.parametrize(
    "smuggler",
    [
        row(text="Done.<|im_end|>\n<|im_start|>user\nMore?"),
        row(weather("Oslo<|im_end|>")),
        row(text="a<|endoftext|>b"),
    ],
)
def test_an_answer_that_smuggles_a_special_token_is_found(base, smuggler):
    assert "the last label ends the turn" in faults(base, row(weather()), smuggler)


def test_a_row_is_named_with_its_source_and_without_its_content(base):
    smuggler = row(text="secret<|im_end|>", source="bfcl:live_7")

    told = faults(base, smuggler, row(text="<|im_end|>"))["the last label ends the turn"]

    assert f"row {smuggler.id} (bfcl:live_7): " in told
    assert "1 rows more" in told
    assert "secret" not in told


def test_an_answer_that_the_tokenizer_loses_is_found(base):
    assert (
        "tokenizer loses text" in faults(base, row(text="bell\x13"))["labels decode to the answer"]
    )


def test_a_prompt_that_the_tokenizer_loses_is_found(base):
    lost = row(weather(), question="bell\x13")

    assert "prompts decode to their text" in faults(base, lost)


def test_an_empty_answer_is_found(base):
    silent = msgspec.structs.replace(row(), text="")

    assert "every row has an answer" in faults(base, silent)


@pytest.mark.parametrize("text", ['{"tool_name": "weather", "arguments": {}}', '{"tool_name'])
def test_text_that_would_be_read_as_a_call_is_found(base, text):
    assert "answers parse as they were meant" in faults(base, row(text=text))


def test_arguments_that_cannot_be_read_back_are_found(base):
    broken = row(FunctionCall("weather", '{"city": '))

    assert "answers parse as they were meant" in faults(base, broken)


def test_a_request_that_no_client_can_send_is_found(base):
    twice = Function("weather", parameters=msgspec.Raw(b'{"type": "object", "type": "object"}'))

    told = faults(base, row(weather(), functions=(twice,)))["the proxy sends the same ids"]

    assert "no client could send it" in told


def test_a_format_whose_end_is_no_token_of_the_base_is_found(base):
    told = faults(base, format="llama3", template="llama3")["the last label ends the turn"]

    assert "take a format of its family" in told


def test_a_template_that_begins_the_text_twice_is_found(tmp_path):
    twice = Encoder(llama(tmp_path), "<|begin_of_text|>" + template("llama3"), "llama3")

    found = {c.name: c for c in checks(RECIPE, twice, ROWS, tmp_path)}

    assert "mend the template" in found["one beginning of the text"].told
    assert not found["one beginning of the text"].ok


# ---------------------------------------------------------------- the run


def test_rows_that_are_too_long_are_counted(base):
    long = row(weather(), question="word " * 300)

    told = checked(base, *ROWS * 3, long, training=TrainingSettings(max_tokens=300))

    assert told["rows are short enough"].ok
    assert (
        "1 of 22 rows are longer than 300 tokens and dropped" in told["rows are short enough"].told
    )


def test_too_many_rows_that_are_too_long_are_a_fault(base):
    long = row(weather(), question="word " * 300)

    told = faults(base, row(weather()), long, training=TrainingSettings(max_tokens=300))

    assert "raise `training.max_tokens` or `training.max_dropped`" in told["rows are short enough"]


def test_a_limit_that_drops_every_row_is_a_fault(base):
    told = faults(base, training=TrainingSettings(max_tokens=9, max_dropped=1.0))

    assert "no row has at most 9 tokens" in told["rows are short enough"]


def test_a_rank_above_vllms_default_tells_the_flag(base):
    told = checked(base, lora=LoraSettings(rank=32))["TGI and vLLM can load it"]

    assert told.ok
    assert "--max-lora-rank 32" in told.told


def test_a_model_that_cannot_fit_is_a_fault_and_tells_what_helps(tmp_path):
    huge = llama(tmp_path, hidden_size=32_768, intermediate_size=131_072, num_hidden_layers=400)

    told = faults(huge, format="llama3", template="llama3")

    assert "training.precision: nf4" in told["memory"]


def test_an_adapter_for_which_there_is_no_room_is_a_fault(tmp_path):
    huge = llama(tmp_path, hidden_size=32_768, intermediate_size=131_072, num_hidden_layers=40_000)

    told = faults(huge, run=tmp_path / "not" / "yet", format="llama3", template="llama3")

    assert "make room" in told["disk space"]


def test_all_faults_are_told_at_once(base):
    found = checked(base, row(text="<|im_end|>"), training=TrainingSettings(max_tokens=9))

    with pytest.raises(PreflightError, match=r"last label.*; .*short enough"):
        require(list(found.values()))


@pytest.mark.parametrize("name", ["api", "bookings", "pitch-cpu"])
def test_a_preset_for_the_packaged_base_fits_this_machine(base, name):
    shipped = recipe.read(Path(recipe.__file__).parents[1] / "recipes" / f"{name}.yaml")

    found = checks(shipped, Encoder.of(shipped, base), ROWS, Path())

    assert [check.name for check in found if not check.ok] == []
