"""Where the tools are in a body is told for sure, or not at all."""

from __future__ import annotations

import json

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from proxy.protocol import tools_in

values = st.recursive(
    st.none() | st.integers() | st.text(),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(), inner, max_size=3),
    max_leaves=8,
)


@given(tools=st.lists(values, min_size=1), before=values, indent=st.sampled_from([None, 1]))
def test_what_is_cut_out_leaves_all_else(tools: list[object], before: object, indent: int | None):
    body = {"before": before, "tools": tools, "after": json.dumps(tools)}
    content = json.dumps(body, indent=indent).encode()

    for found in (tools_in.find(content), tools_in.find(content)):
        if found is not None:
            assert msgspec.json.decode(found.json) == tools
            assert msgspec.json.decode(found.cut(content)) == body | {"tools": None}


@pytest.mark.parametrize(
    "body",
    [
        b"no JSON",
        b'{"messages":[]}',
        b'{"tools":null}',
        b'{"tools":[1]}',
        b'{"a":[{"type":"x"}],"tools":[{"type":"x"}]}',
        b'{"tools":["' + tools_in.MAX_SIZE * b"x" + b'"]}',
    ],
)
def test_tools_that_are_missing_twofold_or_many_are_not_found(body: bytes):
    assert tools_in.find(body) is None


TOOLS = b'[{"type":"function","function":{"name":"ping","description":"%s"}}]' % (b"Ask. " * 20)


def test_tools_that_came_before_are_known_again_by_their_bytes():
    first, second = (tools_in.find(b'{"a":%d,"tools":%s}' % (n, TOOLS)) for n in (1, 22))

    assert first is not None
    assert second == tools_in.Tools(TOOLS, first.at + 1)
    assert second.json is first.json


@pytest.mark.parametrize(
    "rest", [b"", b',"tools":null', b',"tools":[]', b',"\\u0074ools":null', b',"tools" : null']
)
def test_tools_of_something_else_are_not_the_body_s(rest: bytes):
    assert tools_in.find(b'{"tools":%s}' % TOOLS) is not None

    found = tools_in.find(b'{"metadata":{"tools":%s}%s}' % (TOOLS, rest))

    assert found is None or found.json != TOOLS


def test_those_that_begin_alike_are_told_apart():
    alike = [TOOLS[:-1] + b',"%d"]' % number for number in range(95, 105)]

    for tools in alike * 2:
        found = tools_in.find(b'{"tools":%s}' % tools)
        assert found is not None
        assert found.json == tools
