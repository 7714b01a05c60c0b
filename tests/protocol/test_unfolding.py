"""Schemas whose references multiply are refused before anybody follows them."""

from __future__ import annotations

from typing import Any

import msgspec
import pytest

from proxy.protocol.openai import (
    ChatRequest,
    Function,
    FunctionCall,
    MalformedRequest,
    Tool,
    ToolCall,
)
from proxy.protocol.toolcheck import check, check_tools
from proxy.protocol.unfolding import is_folded, looks, size


def laughs(name: str, reference: str, depth: int = 40) -> dict[str, Any]:
    """Each definition asks for the next one twice. `name` is what a reference goes by."""
    parts: dict[str, Any] = {
        f"a{n}": {name: f"a{n}", "allOf": [{"$ref": reference % (n + 1)}] * 2} for n in range(depth)
    }
    parts[f"a{depth}"] = {name: f"a{depth}", "type": "object"}
    return {"$id": "http://x/", "$defs": parts, "$ref": reference % 0}


LAUGHS = {
    "pointers": laughs("title", "#/$defs/a%d"),
    "escaped pointers": laughs("title", "#/%%24defs/a%d"),
    "anchors": laughs("$anchor", "#a%d"),
    "ids": laughs("$id", "a%d"),
    "dynamic anchors": {
        "$defs": {
            "a": {
                "$dynamicAnchor": "a",
                "properties": {"x": {"allOf": [{"$dynamicRef": "#a"}] * 1000}},
            }
        },
        "allOf": [{"$dynamicRef": "#a"}] * 1000,
    },
}
TREE = {
    "$defs": {
        "node": {
            "type": "object",
            "required": ["value"],
            "properties": {
                "value": {"type": "integer"},
                "left": {"anyOf": [{"$ref": "#/$defs/node"}, {"type": "null"}]},
                "right": {"anyOf": [{"$ref": "#/$defs/node"}, {"type": "null"}]},
            },
        }
    },
    "$ref": "#/$defs/node",
}
DOUBLE = {"properties": {"x": {"allOf": [{"$ref": "#"}, {"$ref": "#"}]}}}


def request(schema: object) -> ChatRequest:
    function = Function("f", parameters=msgspec.Raw(msgspec.json.encode(schema)))
    return ChatRequest(model="m", messages=[], tools=[Tool("function", function)])


def called(arguments: object) -> list[ToolCall]:
    return [ToolCall("c", FunctionCall("f", msgspec.json.encode(arguments).decode()))]


def nested(levels: int, name: str, inner: Any) -> Any:
    return {name: nested(levels - 1, name, inner)} if levels else inner


@pytest.mark.parametrize("how", LAUGHS)
def test_a_schema_whose_references_multiply_is_refused(how):
    with pytest.raises(MalformedRequest, match="multiply"):
        check_tools(request(LAUGHS[how]))


def test_a_recursive_schema_that_doubles_is_followed_as_far_as_an_answer_is_shallow():
    offered = request(DOUBLE)

    check_tools(offered)
    assert check(called(nested(10, "x", {})), offered) is None
    failure = check(called(nested(40, "x", {})), offered)
    assert failure is not None and failure.reason == "schema_violation"


def test_a_wide_answer_is_followed_less_deep():
    offered = request(DOUBLE)

    assert check(called(nested(12, "x", {})), offered) is None
    failure = check(called(nested(12, "x", {"wide": [0] * 1000})), offered)
    assert failure is not None and "nested too deeply" in failure.message


def test_a_schema_that_multiplies_from_the_third_level_on_is_no_broken_one():
    offered = request({"properties": {"x": {"allOf": [{"$ref": "#"}] * 300}}})

    check_tools(offered)
    assert check(called({"x": {}}), offered) is None


def test_an_honest_recursive_schema_takes_deep_answers():
    tree = None
    for value in range(250):
        tree = {"value": value, "left": tree, "right": None}

    assert check(called(tree), request(TREE)) is None
    assert check(called({"value": 1, "left": {"value": "x"}}), request(TREE)) is not None


@pytest.mark.parametrize(
    "schema", [{"$ref": "#"}, {"allOf": [{"$ref": "#"}]}, {"not": {"$ref": "#"}}]
)
def test_a_reference_to_itself_is_no_endless_work(schema):
    assert looks(schema, 3) < 10


def test_a_document_of_many_references_in_one_place_is_counted_and_no_more():
    parts = {f"p{n}": {"$ref": "#/$defs/a"} for n in range(2000)}

    assert looks({"$defs": {"a": {"type": "string"}}, "properties": parts}, 4) < 10


def test_only_what_refers_is_counted():
    assert not is_folded(b'{"type":"object","properties":{"a":{"enum":["ref"]}}}')
    assert is_folded(b'{"\\u0024ref":"#"}') and is_folded(b'{"$recursiveRef":"#"}')


def test_size_of_a_value():
    assert size({"a": [1, 2], "b": 3}) == (5, 2)
    assert size(1) == (1, 0)


def test_a_chain_that_is_too_long_to_follow_is_refused():
    parts = {f"a{n}": {"$ref": f"#/$defs/a{n + 1}"} for n in range(1500)} | {"a1500": {}}
    offered = request({"$defs": parts, "$ref": "#/$defs/a0"})

    with pytest.raises(MalformedRequest):
        check_tools(offered)


def stacked(keyword: str, around: str, depth: int) -> dict[str, Any]:
    """Each part has to be looked at again by the one around it, to see what is left."""
    schema: dict[str, Any] = {"properties": {"a": True}}
    for _ in range(depth):
        part = schema if around == "if" else [schema]
        schema = {around: part, keyword: False}
    return schema


@pytest.mark.parametrize("around", ["allOf", "anyOf", "if"])
@pytest.mark.parametrize("keyword", ["unevaluatedProperties", "unevaluatedItems"])
def test_a_schema_that_looks_again_at_each_level_is_refused(keyword: str, around: str):
    with pytest.raises(MalformedRequest, match="multiply beyond all measure"):
        check_tools(request(stacked(keyword, around, 24)))


def test_a_schema_that_looks_again_at_a_few_levels_is_good():
    offer = request(stacked("unevaluatedProperties", "allOf", 6))

    check_tools(offer)
    assert check([ToolCall("1", FunctionCall("f", '{"a":1}'))], offer) is None
    assert check([ToolCall("1", FunctionCall("f", '{"b":1}'))], offer) is not None


DEAR = r"\pL{4}"


@pytest.mark.parametrize(
    "schemas",
    [
        [{"patternProperties": {f"{DEAR}{n}": True for n in range(600)}}],
        [{"allOf": [{"pattern": f"{DEAR}{n}"} for n in range(600)]}],
        [{"pattern": f"{DEAR}{n}"} for n in range(600)],
    ],
)
def test_more_patterns_than_anybody_writes_are_refused(schemas: list[dict[str, Any]]):
    """Each may take 5 ms and a MiB."""
    tools = [
        Tool("function", Function(f"f{n}", parameters=msgspec.Raw(msgspec.json.encode(schema))))
        for n, schema in enumerate(schemas)
    ]

    with pytest.raises(MalformedRequest, match="patterns"):
        check_tools(ChatRequest(model="m", messages=[], tools=tools))


def test_some_patterns_are_good_each_time():
    offer = request({"patternProperties": {f"^a{n}$": {"type": "null"} for n in range(9)}})

    check_tools(offer)
    assert check([ToolCall("1", FunctionCall("f", '{"a1":null}'))], offer) is None
    assert check([ToolCall("1", FunctionCall("f", '{"a1":1}'))], offer) is not None
