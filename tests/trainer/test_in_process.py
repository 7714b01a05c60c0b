"""Asking in this process: the shipped adapter's own answers, parsed as the proxy parses them."""

from __future__ import annotations

from pathlib import Path

import pytest

pytest.importorskip("torch", reason="needs torch; run `make train-setup`")
pytest.importorskip("peft", reason="needs the train extra")

from proxy.protocol.base_model import BaseModel
from proxy.protocol.formats.base import template
from proxy.protocol.openai import FunctionCall
from tests.trainer.examples import function, row
from trainer.evaluate import evaluate
from trainer.in_process import InProcess, of_bundle
from trainer.subject import Subject
from trainer.tokens import Encoder

ADAPTER = Path(__file__).parents[2] / "adapters" / "api-v1"
LCM = function("least_common_multiple", a="integer", b="integer")


async def test_an_adapter_calls_the_tool_that_is_asked_for():
    question = "Find the least common multiple of 18 and 12."
    tides = function("tides_at_harbour", harbour="string")
    asked = row(question=question, functions=(LCM, tides))

    said = await of_bundle(ADAPTER).ask(asked)

    (call,) = said.parsed.calls
    assert (call.function.name, call.function.arguments) == (
        "least_common_multiple",
        '{"a": 18, "b": 12}',
    )
    assert said.raw.startswith('{"tool_name": "least_common_multiple"')
    assert said.prompt_tokens > said.completion_tokens > 0


async def test_what_is_no_call_is_judged_as_the_text_it_is():
    base = BaseModel.find("smollm2-135m-instruct")
    encoder = Encoder(base, template("structured"), "structured")
    torn = base.encode('{"tool_name": "least_common')
    asker = InProcess(encoder, "structured", lambda prompt, most: torn)
    right = FunctionCall("least_common_multiple", '{"a": 18, "b": 12}')
    asked = row(right, functions=(LCM,))

    report = await evaluate([asked], asker=asker, subject=Subject("x"), side="seen")

    (answer,) = report.answers
    assert answer.broken == '{"tool_name": "least_common'
    assert (answer.five.json_strict, answer.score.fault) == (False, "broken")
