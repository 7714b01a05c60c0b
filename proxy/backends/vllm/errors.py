"""What vLLM's errors mean. They have OpenAI's form, or a flat one in older servers.

There is no "overloaded" by default: vLLM queues without bound, so that slots are counted here.
"""

from __future__ import annotations

import msgspec

from proxy.errors import (
    AdapterMissing,
    BackendError,
    BackendOverloaded,
    BackendRefused,
    BackendUnavailable,
    ContextTooLong,
    ProxyError,
)


class _About(msgspec.Struct):
    message: str = ""
    code: int | str | None = None


class _Error(_About):
    """`{"error": {…}}`, or flat, as older servers send it."""

    error: _About | str | None = None


def of_response(status: int, content_type: str, body: bytes) -> ProxyError:
    """What to raise for an answer that is none."""
    try:
        said = msgspec.json.decode(body, type=_Error)
    except (ValueError, RecursionError):
        return _raised(status, "")
    if isinstance(said.error, str):
        return _raised(status, said.error)
    return _raised(status, (said.error or said).message)


def of_event(said: object) -> ProxyError:
    code = said.get("code") if isinstance(said, dict) else None
    message = said.get("message") if isinstance(said, dict) else said
    return _raised(code if isinstance(code, int) else 500, str(message))


def _raised(status: int, message: str) -> ProxyError:
    if status == 404:
        return AdapterMissing("the engine does not know the model that it was asked for")
    if status == 429:
        return BackendOverloaded("the engine answered 429")
    if status in (401, 403) or status >= 500:
        return BackendUnavailable(f"the engine failed ({status})")
    if "context length" in message or "max_model_len" in message or status == 413:
        return ContextTooLong(message[:300], "messages")
    if "grammar" in message.lower() or "structur" in message.lower():
        return BackendError("the engine does not take the request's schema")
    refused = message[:300] or f"the engine answered {status}"
    return BackendRefused(refused, status=400, type="invalid_request_error", code=None, param=None)


def of_load(status: int, content_type: str, body: bytes) -> ProxyError:
    """What a refused load or unload means; AlreadyDone when nothing was left to be done."""
    said = body[:300].decode(errors="replace")
    if (status == 404 and b"cannot be found" in body) or b"already" in body:
        return AlreadyDone(said)
    return BackendError(f"the engine does not do it ({status}): {said}")


class AlreadyDone(BackendError):
    """The adapter to be loaded is there, or the one to be unloaded is not."""
