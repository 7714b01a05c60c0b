"""Calls for the laws of the formats: any name, any JSON object, markup of the formats included."""

from __future__ import annotations

from hypothesis import strategies as st

from proxy.protocol.formats.base import Parsed, dumps
from proxy.protocol.openai import FunctionCall

MARKUP = ("<tool_call>", "</tool_call>", '{"tool_name"', "<|im_end|>", '"}}', "\n")
"""Texts that a parser could take for its own."""

texts = st.text() | st.sampled_from(MARKUP)
values = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False, allow_infinity=False),
    lambda inner: texts | st.lists(inner, max_size=3) | st.dictionaries(texts, inner, max_size=3),
    max_leaves=6,
)
objects = st.dictionaries(texts, values, max_size=4)
calls = st.builds(FunctionCall, st.text(min_size=1), objects.map(dumps))


def called(parsed: Parsed) -> list[FunctionCall]:
    """The calls without their ids, which are made up anew each time."""
    return [call.function for call in parsed.calls]
