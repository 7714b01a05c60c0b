from __future__ import annotations

import math

import pytest

from proxy.backends.confidence import Trace
from proxy.protocol.openai import FunctionCall, ToolCall


def trace(*pieces: tuple[str, float]) -> Trace:
    made = Trace()
    for text, probability in pieces:
        made.add(text, math.log(probability))
    return made


def call(name: str) -> ToolCall:
    return ToolCall("call_1", FunctionCall(name))


def test_name_and_arguments_are_told_apart():
    said = trace(('{"tool_name": "', 0.1), ("we", 0.5), ("ather", 0.8), ('", "', 0.9), ("3}", 0.5))

    confidence = said.confidence([call("weather")])

    assert confidence is not None
    assert confidence.name == pytest.approx(0.4)
    assert confidence.arguments == pytest.approx(0.45)


def test_least_sure_of_several_calls_counts():
    said = trace(('{"', 1), ("a", 0.9), ('":1}', 0.8), ('{"', 1), ("b", 0.4), ('":2}', 0.7))

    confidence = said.confidence([call("a"), call("b")])

    assert confidence is not None
    assert (confidence.name, confidence.arguments) == (pytest.approx(0.4), pytest.approx(0.7))


def test_tool_that_is_called_twice_is_found_twice():
    said = trace(('{"', 1), ("a", 0.9), ('":1}', 0.8), ('{"', 1), ("a", 0.4), ('":2}', 0.7))

    confidence = said.confidence([call("a"), call("a")])

    assert confidence is not None
    assert confidence.name == pytest.approx(0.4)


def test_answer_without_a_call_has_no_confidence():
    assert trace(("Hello", 0.5)).confidence([]) is None


def test_call_that_the_text_does_not_make_has_no_confidence():
    assert trace(("Hello", 0.5)).confidence([call("a")]) is None


def test_tokens_of_a_character_that_is_not_whole_yet_count():
    said = trace(('"a" ', 1), ("", 0.5), ("", 0.5), ("€", 0.5))

    confidence = said.confidence([call("a")])

    assert confidence is not None
    assert confidence.arguments == pytest.approx(0.125)
