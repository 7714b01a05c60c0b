"""What TGI's errors mean, by their shape.

Source: router/src/server.rs and infer/mod.rs at db931fcf. Four shapes: JSON with `error_type`;
plain text, from the web framework, when the body does not fit; `/generate_stream` sends the JSON
as an event; `/v1/chat/completions` sends an event whose status is 422 whatever went wrong, so that
only the message tells.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Literal, TypeAlias

from proxy.backends.http import said_as
from proxy.errors import (
    BackendError,
    BackendOverloaded,
    BackendRefused,
    BackendUnavailable,
    ContextTooLong,
    InvalidAnswer,
    ProxyError,
)

Kind: TypeAlias = Literal["client_error", "too_long", "overloaded", "engine_error", "output_error"]
"""`too_long` is a client's error that a backend with a longer window would not make."""

_BY_TYPE: Mapping[str, Kind] = {
    "overloaded": "overloaded",
    "generation": "engine_error",
    "incomplete_generation": "engine_error",
    "incomplete_generation_stream": "engine_error",
    "healthcheck": "engine_error",
}
_BY_MESSAGE: tuple[tuple[str, Kind], ...] = (
    ("Model is overloaded", "overloaded"),
    ("Request failed during generation", "engine_error"),
    ("Incomplete generation", "engine_error"),
    ("Tool error: Failed to parse", "output_error"),
    ("Input validation error: `inputs` must have less than", "too_long"),
    ("Input validation error: `inputs` tokens + `max_new_tokens`", "too_long"),
    ("Failed to buffer the request body", "too_long"),
)
_SCHEMA = ("regex from schema", "grammar is not")
"""In the messages about a schema that its compiler does not take."""


def of_response(status: int, content_type: str, body: bytes) -> ProxyError:
    """What to raise for an answer that is none."""
    said = said_as(body) if content_type == "application/json" else {}
    message = str(said.get("error") or body[:500].decode(errors="replace"))
    return _raised(classify(status, str(said.get("error_type", "")), message), status, message)


def of_event(said: object, error_type: object) -> ProxyError:
    """The same for an event: `said` is its `error`, a text or an object."""
    message = said.get("message") if isinstance(said, dict) else said
    return _raised(classify(200, str(error_type or ""), str(message)), 200, str(message))


def classify(status: int, error_type: str, message: str) -> Kind:
    """The kind of an error; status 200 for one that came as an event."""
    for beginning, kind in _BY_MESSAGE:
        if message.startswith(beginning):
            return kind
    if error_type in _BY_TYPE:
        return _BY_TYPE[error_type]
    if status == 429:
        return "overloaded"
    # 401: our key is wrong, which is not the client's fault; 404: it is no TGI, or another version.
    if status in (401, 403, 404, 424) or status >= 500:
        return "engine_error"
    return "client_error"


def _raised(kind: Kind, status: int, message: str) -> ProxyError:
    match kind:
        case "overloaded":
            return BackendOverloaded("the engine is overloaded")
        case "engine_error":
            return BackendUnavailable(f"the engine failed ({status})")
        case "output_error":
            return InvalidAnswer("the engine cannot read its own tool call", "broken_call")
        case "too_long":
            return ContextTooLong(_bounded(message), "messages")
        case "client_error":
            return _refused(message)


def _refused(message: str) -> ProxyError:
    if any(words in message for words in _SCHEMA):
        # Another engine's compiler may take it; this server is well.
        return BackendError("the engine does not take the request's schema")
    return BackendRefused(
        _bounded(message), status=400, type="invalid_request_error", code=None, param=None
    )


def _bounded(message: str) -> str:
    return message if len(message) <= 300 else message[:300] + " …"
