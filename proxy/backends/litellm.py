"""Every provider that litellm knows: its library asks them, and answers in OpenAI's form.

Optional: litellm is imported in `build`, when routes.yaml names a backend of this kind, and nowhere
else. It is a library that calls home and keeps settings in its module, so that it is muted first.
"""

from __future__ import annotations

import asyncio
import importlib
import logging
import os
from collections.abc import AsyncIterator, Iterator, Mapping
from contextlib import asynccontextmanager, contextmanager
from types import ModuleType
from typing import Any

import msgspec

from proxy import sse
from proxy.backends.base import Ask, Relayed
from proxy.backends.settings import LiteLLMSettings
from proxy.errors import (
    BackendLimited,
    BackendRefused,
    BackendTimeout,
    BackendUnavailable,
    BadConfig,
    ContextTooLong,
    MissingExtra,
    ProxyError,
    Unsupported,
)
from proxy.protocol.openai import ChatRequest

COMPROMISED = ("1.82.7", "1.82.8", "1.107.0")
"""Releases that were put on the package index by thieves of keys."""

_NAMED = frozenset(
    """
    messages functions function_call temperature top_p n stream stream_options stop max_tokens
    max_completion_tokens modalities prediction audio presence_penalty frequency_penalty logit_bias
    user response_format seed tools tool_choice parallel_tool_calls logprobs top_logprobs
    reasoning_effort verbosity safety_identifier service_tier store prompt_cache_key
    web_search_options thinking
    """.split()  # noqa: SIM905  # read as words
)
"""Fields of a request that litellm takes by name. All others go through `extra_body`: some of its
other names (`api_base`, `mock_response`) would let a client say where our key is sent."""
_MUTE: Mapping[str, object] = {
    "telemetry": False,
    "suppress_debug_info": True,
    "turn_off_message_logging": True,
    "disable_streaming_logging": True,
    "disable_hf_tokenizer_download": True,
    "drop_params": False,
    "modify_params": False,
    "callbacks": [],
    "input_callback": [],
    "success_callback": [],
    "failure_callback": [],
}
"""Settings of litellm's module: it tells nobody anything, and leaves requests as they are."""
_HEADERS = {False: "application/json", True: "text/event-stream; charset=utf-8"}
_ANSWER = msgspec.json.Encoder()
_BODY = msgspec.json.Decoder(dict[str, Any])


def build(name: str, settings: LiteLLMSettings) -> LiteLLMBackend:
    """The backend, with litellm imported and muted.

    Raises MissingExtra when it is not installed, BadConfig when a stolen release is.
    """
    check_installed(name)
    # Read while it is imported: without it, litellm fetches its list of prices from the network.
    os.environ["LITELLM_LOCAL_MODEL_COST_MAP"] = "True"
    litellm = importlib.import_module("litellm")
    for setting, value in _MUTE.items():
        setattr(litellm, setting, value)
    # These write whole requests when a variable of their own in the environment says so.
    for logger in ("LiteLLM", "LiteLLM Router", "LiteLLM Proxy"):
        logging.getLogger(logger).disabled = True
    logging.getLogger("openai").setLevel(logging.WARNING)
    return LiteLLMBackend(name, settings, litellm)


def check_installed(name: str) -> None:
    """Make sure that a litellm is there which can be imported; raises as `build` does."""
    from importlib import metadata

    try:
        version = metadata.version("litellm")
    except metadata.PackageNotFoundError as error:
        raise MissingExtra(
            f"$.backends.{name}: kind 'litellm' needs the package 'litellm', which is not"
            " installed; run: pip install 'headrace[litellm]'"
        ) from error
    if version in COMPROMISED:
        raise BadConfig(
            f"$.backends.{name}: litellm {version} is a release that steals keys; uninstall it,"
            " replace every key that this machine knows, then run: pip install 'headrace[litellm]'"
        )


class LiteLLMBackend:
    """Any provider, asked through litellm's library."""

    is_local = False

    def __init__(self, name: str, settings: LiteLLMSettings, litellm: ModuleType) -> None:
        self.name = name
        self._settings = settings
        self._litellm = litellm
        self._is_closed = False

    def lacks(self, request: ChatRequest) -> str | None:
        """Nothing, as far as we know: what a provider cannot serve, litellm says."""
        return None

    @asynccontextmanager
    async def ask(self, ask: Ask) -> AsyncIterator[Relayed]:
        """Send the request on. Leaving the context cuts an answer that is still coming."""
        streamed = bool(ask.request.stream)
        with self._translated():
            async with asyncio.timeout(self._patience_s(streamed)):
                answer = await self._litellm.acompletion(**self._arguments(ask))
        headers = {"content-type": _HEADERS[streamed]}
        renamed = ask.request.model in self._settings.models
        try:
            content = self._events(answer) if streamed else _once(_encoded(answer))
            yield Relayed(200, headers, content, renamed)
        finally:
            if streamed:
                await answer.aclose()

    async def ready(self) -> bool:
        """True until closed: what a provider can do, it says when it is asked."""
        return not self._is_closed

    async def aclose(self) -> None:
        """Close all connections."""
        self._is_closed = True
        await self._litellm.close_litellm_async_clients()
        self._litellm.in_memory_llm_clients_cache.flush_cache()

    def _patience_s(self, streamed: bool) -> float:
        return self._settings.silence_s if streamed else self._settings.answer_s

    def _arguments(self, ask: Ask) -> dict[str, Any]:
        """What litellm is called with: the client's fields, where they go, and as whom."""
        settings, model = self._settings, ask.request.model
        fields = _BODY.decode(ask.body)
        del fields["model"]
        known = {field: fields.pop(field) for field in _NAMED & fields.keys()}
        where = {
            "api_key": settings.api_key,
            "api_base": settings.api_base,
            "api_version": settings.api_version,
        }
        return {
            **known,
            **self._more(settings.models.get(model, model), fields),
            **settings.options,
            **{name: value for name, value in where.items() if value is not None},
            "model": settings.models.get(model, model),
            # Twice ours, so that ours is the one that ends it: providers' count different things.
            "timeout": 2 * self._patience_s(bool(ask.request.stream)),
            # The cascade decides who is asked again.
            "max_retries": 0,
            "num_retries": 0,
            # A tool of type `mcp` goes to the provider, it is not run here.
            "_skip_mcp_handler": True,
        }

    def _more(self, model: str, fields: dict[str, Any]) -> dict[str, Any]:
        """How fields are passed on that litellm does not take by name."""
        provider = self._litellm.get_llm_provider(model, api_base=self._settings.api_base)[1]
        if provider in ("openai", "azure", *self._litellm.openai_compatible_providers):
            return {"extra_body": fields}
        # Notes for OpenAI's own pages; no other provider keeps any.
        fields.pop("metadata", None)
        for field in fields:
            raise Unsupported(f"{field!r} is nothing that {provider} knows", field)
        return {}

    async def _events(self, stream: Any) -> AsyncIterator[bytes]:
        """The stream as OpenAI's events, `[DONE]` last; raises BackendError when it breaks off."""
        while True:
            with self._translated():
                async with asyncio.timeout(self._settings.silence_s):
                    chunk = await anext(stream, None)
            if chunk is None:
                yield sse.encode(sse.DONE)
                return
            wire = _encoded_chunk(chunk)
            # litellm makes an end up where the provider has sent none.
            if _is_end(chunk) and not (
                stream.received_finish_reason or stream.intermittent_finish_reason
            ):
                raise BackendUnavailable("the backend's stream ended before its answer did")
            yield sse.encode(wire)

    @contextmanager
    def _translated(self) -> Iterator[None]:
        try:
            yield
        except Exception as error:
            # Not only its own kinds: what a provider's answer makes it stumble over comes as it is.
            raise self._error(error) from error

    def _error(self, error: Exception) -> ProxyError:
        kinds = self._litellm.exceptions
        match error:
            case ProxyError():
                return error
            case kinds.MidStreamFallbackError() if error.original_exception is not None:
                return self._error(error.original_exception)
            case TimeoutError() | kinds.Timeout():
                return BackendTimeout("the backend went silent")
            case kinds.ContextWindowExceededError():
                return ContextTooLong("the prompt is too long for the backend's model")
            case kinds.APIConnectionError():
                return BackendUnavailable("the backend could not be reached, or broke off")
            case _:
                return _by_status(error, getattr(error, "status_code", None))


def _by_status(error: Exception, status: object) -> ProxyError:
    """What to raise for a provider's own error, as the openai backend does it."""
    if status == 408:
        return BackendTimeout("the backend answered 408")
    if status == 429:
        return _limited(error)
    if status in (401, 402, 403):
        # Such a message may show a part of our key.
        return BackendUnavailable(f"the backend does not accept our credentials ({status})")
    if isinstance(status, int) and 400 <= status < 500:
        return _refused(error, status)
    if isinstance(status, int):
        return BackendUnavailable(f"the backend answered {status}")
    return BackendUnavailable(f"the backend could not be used: {type(error).__name__}")


def _limited(error: Exception) -> BackendLimited:
    code = _said(error).get("code")
    message = "the backend answered 429: its rate limit is reached"
    return BackendLimited(message, _retry(error), None if code is None else str(code))


def _refused(error: Exception, status: int) -> BackendRefused:
    said = _said(error)
    code, param = said.get("code"), said.get("param")
    return BackendRefused(
        str(said.get("message") or f"the backend answered {status}"),
        status=status,
        type=str(said.get("type") or "invalid_request_error"),
        code=None if code is None else str(code),
        param=None if param is None else str(param),
    )


def _said(error: Exception) -> Mapping[str, object]:
    """What the provider said: litellm often keeps it only in the error that caused its own."""
    for cause in _causes(error):
        body = getattr(cause, "body", None)
        if isinstance(body, Mapping):
            return body
    text = str(getattr(error, "message", "")).partition("Exception - ")[2]
    return _inside(text.removeprefix("b'").removesuffix("'")) or {"message": text}


def _causes(error: BaseException | None) -> Iterator[BaseException]:
    while error is not None:
        yield error
        error = error.__cause__ or error.__context__


def _inside(text: str) -> Mapping[str, object] | None:
    try:
        about = _BODY.decode(text).get("error")
    except (ValueError, RecursionError):
        return None
    return about if isinstance(about, Mapping) else None


def _retry(error: object) -> dict[str, str]:
    headers: Mapping[str, str] = getattr(error, "litellm_response_headers", None) or {}
    return {name: value for name, value in headers.items() if name.startswith("retry-after")}


# ---------------------------------------------------------------- litellm's objects → bytes


async def _once(content: bytes) -> AsyncIterator[bytes]:
    yield content


def _encoded(answer: Any) -> bytes:
    """A completion, with the keys that clients look for where they are null."""
    fields = answer.model_dump(mode="json", exclude_none=True)
    for choice in fields["choices"]:
        choice["message"].setdefault("content", None)
    return _ANSWER.encode(fields)


def _encoded_chunk(chunk: Any) -> bytes:
    """A chunk; deltas without nulls, as clients concatenate what a key repeats."""
    fields = chunk.model_dump(mode="json", exclude_none=True)
    for choice in fields["choices"]:
        choice.setdefault("finish_reason", None)
    if "usage" in fields and not any(choice["finish_reason"] for choice in fields["choices"]):
        fields["choices"] = []
    return _ANSWER.encode(fields)


def _is_end(chunk: Any) -> bool:
    return any(choice.finish_reason is not None for choice in chunk.choices)
