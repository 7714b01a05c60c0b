"""Settings of the backends, one struct a kind; light, so that reading them loads no engine."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, TypeAlias

import msgspec


class OpenAISettings(
    msgspec.Struct,
    frozen=True,
    forbid_unknown_fields=True,
    kw_only=True,
    tag="openai",
    tag_field="kind",
):
    """A server that speaks OpenAI's protocol: OpenAI itself, or any engine that does."""

    base_url: Annotated[str, msgspec.Meta(pattern="^https?://[^/]")]
    """Where its API begins, with the version: `https://api.openai.com/v1`."""
    api_key: str | None = None
    """Sent as `Authorization: Bearer`. Default none, for engines of one's own."""
    models: dict[str, str] = {}
    """Name that clients use → name that this server knows. Names left out go as they are."""
    connect_s: Annotated[float, msgspec.Meta(gt=0)] = 5
    """Seconds until a connection must stand. Default 5: what needs more is as good as down."""
    silence_s: Annotated[float, msgspec.Meta(gt=0)] = 60
    """Seconds without a byte after which a streamed answer is given up. Default 60: models think
    long before the first token; a long answer is no error, a silent one is."""
    answer_s: Annotated[float, msgspec.Meta(gt=0)] = 600
    """Seconds until an answer that comes in one piece must be there. Default 600, the SDKs' own."""
    max_connections: Annotated[int, msgspec.Meta(ge=1)] = 1000
    """Connections at once. Default 1000: `limits.max_in_flight` is meant to bind first."""


class LiteLLMSettings(
    msgspec.Struct,
    frozen=True,
    forbid_unknown_fields=True,
    kw_only=True,
    tag="litellm",
    tag_field="kind",
):
    """Any provider that the litellm library knows (extra `litellm`)."""

    models: dict[str, str] = {}
    """Name that clients use → litellm's, provider first: `anthropic/claude-…`. Names left out go as
    they are, and litellm guesses the provider."""
    api_key: str | None = None
    """The provider's key. Default none: litellm reads the provider's own variables."""
    api_base: Annotated[str, msgspec.Meta(pattern="^https?://[^/]")] | None = None
    """Where the provider's API begins. Default none: where litellm knows it to be."""
    api_version: str | None = None
    """Version of the API, for providers that have one in their requests. Default none."""
    options: dict[str, str | int | float | bool] = {}
    """More that litellm needs of a provider, under its names: `aws_region_name`, `vertex_project`,
    … Default none. They win over what a client sends."""
    silence_s: Annotated[float, msgspec.Meta(gt=0)] = 60
    """Seconds without an event after which a stream is given up. Default 60, as `openai`."""
    answer_s: Annotated[float, msgspec.Meta(gt=0)] = 600
    """Seconds until an answer that comes in one piece must be there. Default 600, as `openai`."""


class EmbeddedSettings(
    msgspec.Struct,
    frozen=True,
    forbid_unknown_fields=True,
    kw_only=True,
    tag="embedded",
    tag_field="kind",
):
    """A small model with its adapters on this machine's processor (extra `embedded`)."""

    base_model: str
    """Id of a packaged base model (`smollm2-135m-instruct`), or the path of a .gguf file."""
    adapters: Path = Path("adapters")
    """Directory of the adapter bundles and of champions.json: which of them serves which domain."""
    memory_limit_mib: Annotated[int, msgspec.Meta(ge=256)] = 3072
    """Memory for loaded models in MiB; above it the one that was used longest ago is unloaded.
    Default 3072: the base and two adapters of a 135M model with their caches."""
    max_waiting: Annotated[int, msgspec.Meta(ge=1)] = 64
    """Requests that may wait or run at once; one more goes to the next backend. Default 64: at some
    5 requests a second and core pair, what waits longer than that has timed out."""
    preload: bool = True
    """Load the champions at start. Default true: else the first request of each waits seconds."""


BackendSettings: TypeAlias = OpenAISettings | LiteLLMSettings | EmbeddedSettings
KINDS = ("embedded", "litellm", "openai")
