"""A request becomes the ids that the adapter was trained on, or the adapter is not served."""

from __future__ import annotations

import pytest

from proxy.protocol.base_model import BaseModel
from proxy.protocol.formats.base import template
from proxy.protocol.openai import Message
from proxy.protocol.parity import ParityError, Sample, prove, rendering
from tests.trainer.examples import WEATHER, row, weather
from trainer.tokens import Encoder

ASKED = [Message(role="user", content="Wie warm ist es in 東京? 🌡")]


@pytest.fixture(scope="module")
def base() -> BaseModel:
    return BaseModel.find("smollm2-135m-instruct")


@pytest.fixture(scope="module")
def samples(base) -> list[Sample]:
    """What a trainer that uses `structured` puts into a bundle."""
    encoder = Encoder(base, template("structured"), "structured")
    return [
        Sample("structured", one.messages, one.functions, encoder.prompt(one))
        for one in (row(weather(), question="Wie warm ist es in 東京? 🌡"), row())
    ]


def test_the_template_of_the_training_passes(base, samples):
    prove(samples, rendering({"structured": template("structured")}, base.encode))


@pytest.mark.parametrize("other", ["hermes", "hermes-compact", "cep", "chatml"])
def test_another_template_does_not(base, samples, other):
    with pytest.raises(ParityError, match=r"request 0 .* they differ from id \d+ on"):
        prove(samples, rendering({"structured": template(other)}, base.encode))


def test_one_space_more_is_another_template(base, samples):
    spaced = template("structured").replace("assistant\n", "assistant \n")

    with pytest.raises(ParityError):
        prove(samples, rendering({"structured": spaced}, base.encode))


def test_another_tokenizer_does_not_pass(base, samples):
    def with_beginning(text: str) -> list[int]:
        return [1, *base.encode(text)]

    with pytest.raises(ParityError, match="differ from id 1 on"):
        prove(samples, rendering({"structured": template("structured")}, with_beginning))


def test_ids_that_are_cut_short_differ_where_they_end(base, samples):
    (first, *_) = samples
    longer = Sample("structured", first.messages, first.functions, [*first.ids, 5])

    with pytest.raises(ParityError, match=f"from id {len(first.ids)} on"):
        prove([longer], rendering({"structured": template("structured")}, base.encode))


def test_a_format_that_the_bundle_has_not_is_an_error_of_ours(base):
    unknown = Sample("xml", ASKED, [WEATHER], [1])

    with pytest.raises(ParityError, match="'xml'"):
        prove([unknown], rendering({"structured": template("structured")}, base.encode))


def test_a_bundle_without_samples_is_from_before_and_passes(base):
    prove([], rendering({}, base.encode))
