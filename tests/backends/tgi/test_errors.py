"""What TGI's errors mean: who can do something about them."""

from __future__ import annotations

import msgspec
import pytest

from proxy.backends.tgi.errors import classify, of_event, of_response
from proxy.errors import (
    BackendError,
    BackendOverloaded,
    BackendRefused,
    BackendTimeout,
    BackendUnavailable,
    ContextTooLong,
    InvalidAnswer,
)

CUT = 'Tool error: Failed to parse generated text: EOF while parsing a string "{\\"function\\": {"'
LONG = "Input validation error: `inputs` must have less than 4096 tokens. Given: 5000"
SCHEMA = "Input validation error: cannot compile regex from schema: 'type' must be a string"
TOP_P = "Input validation error: `top_p` must be > 0.0 and < 1.0"


@pytest.mark.parametrize(
    ("status", "error_type", "message", "kind"),
    [
        (429, "overloaded", "Model is overloaded", "overloaded"),
        (424, "generation", "Request failed during generation: CUDA", "engine_error"),
        (500, "incomplete_generation", "Incomplete generation", "engine_error"),
        (503, "healthcheck", "unhealthy", "engine_error"),
        (401, "", "", "engine_error"),
        (422, "tool_error", CUT, "output_error"),
        (422, "tool_error", "Tool error: Tool with name nope not found", "client_error"),
        (422, "validation", LONG, "too_long"),
        (422, "validation", TOP_P, "client_error"),
        (422, "", "Failed to deserialize the JSON body into the target type", "client_error"),
        (413, "", "Failed to buffer the request body: length limit exceeded", "too_long"),
    ],
)
def test_an_error_is_classified_by_its_shape(status, error_type, message, kind):
    assert classify(status, error_type, message) == kind


@pytest.mark.parametrize(
    ("said", "kind"),
    [
        ({"message": "Model is overloaded", "http_status_code": 422}, BackendOverloaded),
        ({"message": "Request failed during generation: x"}, BackendUnavailable),
        ({"message": CUT, "http_status_code": 422}, InvalidAnswer),
        ({"message": LONG}, ContextTooLong),
        ({"message": TOP_P}, BackendRefused),
    ],
)
def test_of_a_chats_event_only_the_message_tells(said, kind):
    assert type(of_event(said, None)) is kind


def test_an_event_of_generation_names_its_type():
    assert type(of_event("CUDA out of memory", "generation")) is BackendUnavailable


def test_a_schema_that_is_refused_says_nothing_against_the_server():
    body = msgspec.json.encode({"error": SCHEMA, "error_type": "validation"})

    refused = of_response(422, "application/json", body)

    assert isinstance(refused, BackendError)
    assert not isinstance(refused, BackendUnavailable | BackendTimeout)


@pytest.mark.parametrize("body", [b"", b"\xff", b"[]", b'"x"', b"{" * 1000, b'{"error": null}'])
def test_a_body_of_any_kind_is_no_surprise(body):
    assert type(of_response(500, "application/json", body)) is BackendUnavailable
    assert type(of_response(422, "application/json", body)) is BackendRefused


def test_a_long_message_is_cut():
    assert len(of_response(422, "text/plain", b"x" * 10_000).message) < 400
