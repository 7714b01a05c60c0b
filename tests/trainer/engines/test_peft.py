"""Training a LoRA, for real: SmolLM2 on the CPU, a few short rows, two steps."""

from __future__ import annotations

import copy
import re
from collections.abc import Iterator
from pathlib import Path
from typing import NamedTuple

import msgspec
import pytest

pytest.importorskip("torch", reason="needs torch; run `make train-setup`")
pytest.importorskip("peft", reason="needs the train extra")

import torch
from peft import PeftModel
from safetensors import safe_open

from proxy.protocol.base_model import BaseModel
from proxy.protocol.formats.base import render, template
from proxy.protocol.openai import Message
from tests.trainer.examples import row, weather
from trainer.engines import base_weights
from trainer.engines.loss import cross_entropy, predicting
from trainer.engines.peft import PeftEngine, PeftTrained
from trainer.recipe import DecodingSettings, LoraSettings, Recipe, TrainingSettings
from trainer.tokens import Encoder, Example

CITIES = ("Oslo", "Rome", "Lima", "Kyiv")
RECIPE = Recipe(
    domain="test",
    format="structured",
    template="structured",
    sources=[],
    lora=LoraSettings(rank=8, alpha=16),
    training=TrainingSettings(
        learning_rate=2e-3,
        warmup=0.0,
        precision="bf16",
        batch_tokens=100,
        micro_tokens=500,
        max_tokens=200,
    ),
)
LAYERS = 30
END_ID = 2
LINEARS = {"q_proj", "k_proj", "v_proj", "o_proj", "gate_proj", "up_proj", "down_proj"}


class Run(NamedTuple):
    """A training that is over."""

    trained: PeftTrained
    directory: Path
    """Where it wrote its metrics, and was saved."""


@pytest.fixture(scope="module")
def base() -> BaseModel:
    return BaseModel.find("smollm2-135m-instruct")


@pytest.fixture(scope="module", autouse=True)
def two_threads() -> Iterator[None]:
    """Leave the machine's other cores to its other work."""
    before = torch.get_num_threads()
    torch.set_num_threads(min(2, before))
    yield
    torch.set_num_threads(before)


@pytest.fixture(scope="module")
def weights(base):
    """The base, without any adapter."""
    return base_weights.load(base, "bf16").eval()


@pytest.fixture(scope="module")
def examples(base) -> list[Example]:
    """The same four rows twice: a step of the first four, then one of the same again."""
    encoder = Encoder(base, template("structured"), "structured")
    return [encoder(row(weather(city), question=f"Rain in {city}?")) for city in CITIES]


@pytest.fixture(scope="module")
def run(base, examples, tmp_path_factory) -> Run:
    directory = tmp_path_factory.mktemp("run")
    trained = PeftEngine().train(base, [*examples, *examples], RECIPE, directory)
    trained.save(directory)
    return Run(trained, directory)


def metrics(run: Run) -> list[dict[str, float]]:
    lines = (run.directory / "metrics.jsonl").read_bytes().splitlines()
    return [msgspec.json.decode(line) for line in lines]


def loss(model, examples: list[Example]) -> float:
    """Mean cross-entropy over the completions, by the model's own head and one row at a time."""
    with torch.inference_mode():
        return sum(_loss(model, example) for example in examples) / len(examples)


def _loss(model, example: Example) -> float:
    logits = model(input_ids=torch.tensor([example.ids])).logits[0, example.prompt - 1 : -1]
    labels = torch.tensor(example.completion)
    return torch.nn.functional.cross_entropy(logits.float(), labels).item()


# ---------------------------------------------------------------- the base


def test_the_dequantised_base_knows_its_capitals(base, weights):
    asked = [Message(role="user", content="What is the capital of France? One word.")]
    prompt = base.encode(render(template("chatml"), asked))

    answer = PeftTrained(weights, END_ID).answers([prompt], DecodingSettings(max_new_tokens=12))[0]

    assert "Paris" in base.tokenizer.decode(answer)


def test_the_dequantised_base_is_tied_and_whole(weights):
    assert weights.lm_head.weight is weights.model.embed_tokens.weight
    assert sum(p.numel() for p in weights.parameters()) == 134_515_008


# ---------------------------------------------------------------- the training


def test_two_steps_lower_the_loss_on_their_rows(run, weights, examples):
    assert loss(run.trained.model, examples) < 0.7 * loss(weights, examples)


def test_what_a_step_reports_is_the_loss_of_its_rows(run, weights, examples):
    first = metrics(run)[0]

    assert first["loss"] == pytest.approx(loss(weights, examples), rel=0.1)


def test_every_step_is_reported(run, examples):
    told = metrics(run)

    assert [line["step"] for line in told] == list(range(len(told)))
    assert len(told) == 2
    assert sum(line["tokens"] for line in told) >= 2 * sum(len(e.ids) for e in examples)
    assert told[-1]["loss"] < told[0]["loss"]


def test_padding_changes_no_loss(run, base, examples):
    short = Encoder(base, template("structured"), "structured")(row(text="No."))
    model = run.trained.model

    with torch.inference_mode():
        together = cross_entropy(model, [short, *examples]).item()
        apart = sum(cross_entropy(model, [example]).item() for example in (short, *examples))

    assert together == pytest.approx(apart, rel=0.02)


def test_the_prompt_is_not_learnt(examples):
    predicted = list(predicting(examples))

    assert len(predicted) == sum(len(example.completion) for example in examples)
    assert min(column for _, column in predicted) == min(e.prompt for e in examples) - 1


def test_the_end_of_the_turn_is_learnt(run, examples):
    answer = run.trained.greedy(examples[0].ids[:-1], 1)

    assert answer == [2]


# ---------------------------------------------------------------- what is saved


def test_the_saved_adapter_is_bf16_and_has_the_seven_linears_of_each_layer(run):
    with safe_open(run.directory / "adapter_model.safetensors", "pt") as saved:
        names = list(saved.keys())
        kinds = {saved.get_tensor(name).dtype for name in names}

    found = [
        re.fullmatch(r".*\.layers\.(\d+)\..*\.(\w+_proj)\.lora_[AB]\.weight", n) for n in names
    ]
    assert kinds == {torch.bfloat16}
    assert {match[2] for match in found} == LINEARS
    assert {int(match[1]) for match in found} == set(range(LAYERS))
    assert len(names) == LAYERS * len(LINEARS) * 2


def test_the_saved_adapter_answers_as_the_trained_one(run, base, weights, examples):
    read = PeftModel.from_pretrained(copy.deepcopy(weights), run.directory)
    loaded = PeftTrained(read.eval(), END_ID)
    prompt = examples[0].ids[: examples[0].prompt]

    assert loaded.greedy(prompt, 12) == run.trained.greedy(prompt, 12)


def test_the_base_beneath_answers_as_without_an_adapter(run, weights, examples):
    prompt = examples[0].ids[: examples[0].prompt]

    beneath = run.trained.greedy(prompt, 8, adapter=False)

    assert (
        beneath
        == PeftTrained(weights, END_ID).answers([prompt], DecodingSettings(max_new_tokens=8))[0]
    )
    assert beneath != run.trained.greedy(prompt, 8)
