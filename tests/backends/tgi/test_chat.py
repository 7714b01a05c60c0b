"""Chat requests as TGI accepts them: what is rewritten, left out, or not asked of it at all."""

from __future__ import annotations

import msgspec
import pytest

from proxy.backends.dialect import Conversation, Sampling
from proxy.backends.tgi.chat import MAX_CONSTRAINED, body, lacks
from proxy.protocol.openai import parse_request

USER = [{"role": "user", "content": "Hi"}]
SCHEMA = {"type": "object", "properties": {"a": {"type": "string"}}}
ANSWER = {"type": "json_schema", "json_schema": {"name": "answer", "schema": SCHEMA}}


def tool(name: str = "ping", parameters: object = SCHEMA) -> dict[str, object]:
    return {"type": "function", "function": {"name": name, "parameters": parameters}}


def written(sampling: Sampling | None = None, **fields: object) -> dict[str, object]:
    """The body that TGI gets, as it reads it."""
    request = parse_request(msgspec.json.encode({"model": "gpt-4o", "messages": USER, **fields}))
    conversation = Conversation(
        adapter="geo-v1", request=request, sampling=sampling or Sampling(max_tokens=50)
    )
    return msgspec.json.decode(msgspec.json.encode(body(conversation)), type=dict[str, object])


def lacked(**fields: object) -> str | None:
    return lacks(parse_request(msgspec.json.encode({"model": "m", "messages": USER, **fields})))


def test_the_adapter_is_asked_for_as_the_model():
    assert written()["model"] == "geo-v1"


def test_nothing_is_sent_that_tgi_refuses_or_garbles():
    sent = written(stop=["x"], presence_penalty=1, logit_bias={}, n=1, user="me")

    assert set(sent) == {
        *("model", "messages", "stream", "stream_options", "logprobs"),
        *("max_tokens", "temperature"),
    }


@pytest.mark.parametrize(("top_p", "sent"), [(1.0, None), (1e-6, 1e-6), (0.5, 0.5)])
def test_top_p_is_sent_where_tgi_takes_it(top_p, sent):
    assert written(Sampling(max_tokens=5, top_p=top_p)).get("top_p") == sent


@pytest.mark.parametrize("seed", [-1, 2**70])
def test_a_seed_fits_into_64_bits(seed):
    assert 0 <= written(Sampling(max_tokens=5, seed=seed))["seed"] < 2**64


def test_an_answer_in_a_grammar_has_fewer_tokens_than_a_portion():
    sent = written(Sampling(max_tokens=5000), tools=[tool()])

    assert sent["max_tokens"] == MAX_CONSTRAINED
    assert written(Sampling(max_tokens=5000))["max_tokens"] == 5000


def test_an_answers_schema_is_spelled_as_tgi_does():
    assert written(response_format=ANSWER)["response_format"] == {"type": "json", "value": SCHEMA}


def test_tools_that_may_not_be_called_are_not_shown():
    assert "tools" not in written(tools=[tool()], tool_choice="none")


def test_a_message_with_calls_and_a_text_keeps_its_calls():
    call = {"id": "1", "type": "function", "function": {"name": "ping", "arguments": "{}"}}
    said = {"role": "assistant", "content": "Let me see.", "tool_calls": [call]}

    sent = written(messages=[*USER, said])["messages"]

    assert sent[1] == {"role": "assistant", "tool_calls": [call]}


@pytest.mark.parametrize(
    ("fields", "field"),
    [
        ({}, None),
        ({"tools": [tool()]}, None),
        ({"response_format": ANSWER}, None),
        ({"response_format": {"type": "text"}, "tools": [tool()]}, None),
        ({"tools": [tool("no_tool")]}, "tools"),
        ({"tools": [tool("notify_error")]}, "tools"),
        ({"tools": [tool(parameters={"type": "object", "properties": {"a": {}}})]}, "tools"),
        (
            {
                "tools": [tool(parameters={"properties": {"a": {"$ref": "#"}}})],
                "tool_choice": "none",
            },
            None,
        ),
        ({"response_format": ANSWER, "tools": [tool()]}, "response_format"),
        ({"response_format": {"type": "json_object"}}, "response_format"),
    ],
    ids=str,
)
def test_what_tgi_must_not_be_given_is_named(fields, field):
    assert lacked(**fields) == field
