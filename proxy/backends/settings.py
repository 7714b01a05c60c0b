"""Settings of the backends, one struct a kind; light, so that reading them loads no engine."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Literal, TypeAlias

import msgspec

from proxy.backends.pool_settings import PoolSettings
from proxy.discreet import Discreet

_Url = Annotated[str, msgspec.Meta(pattern="^https?://[^/?#@]+/?$")]


class RemoteSettings(
    Discreet, msgspec.Struct, frozen=True, forbid_unknown_fields=True, kw_only=True
):
    """What clouds that are asked over HTTP have in common; the kinds below add their own."""

    models: dict[str, str] = {}
    """Name that clients use → name that this server knows. Names left out go as they are."""
    connect_s: Annotated[float, msgspec.Meta(gt=0)] = 5
    """Seconds until a connection must stand. Default 5: what needs more is as good as down."""
    silence_s: Annotated[float, msgspec.Meta(gt=0)] = 60
    """Seconds without a byte after which a streamed answer is given up. Default 60: models think
    long before the first token; a long answer is no error, a silent one is."""
    answer_s: Annotated[float, msgspec.Meta(gt=0)] = 600
    """Seconds until an answer that comes in one piece must be there. Default 600, the SDKs' own."""
    count_usage: bool = False
    """Ask for the usage of streamed answers also where the client does not, for the record; the
    client does not see it. Default no: not all servers know `stream_options`."""
    max_connections: Annotated[int, msgspec.Meta(ge=1)] = 1000
    """Connections at once. Default 1000: `limits.max_in_flight` is meant to bind first."""


class OpenAISettings(RemoteSettings, frozen=True, kw_only=True, tag="openai", tag_field="kind"):
    """A server that speaks OpenAI's protocol: OpenAI itself, or any engine that does."""

    base_url: Annotated[str, msgspec.Meta(pattern="^https?://[^/]")]
    """Where its API begins, with the version: `https://api.openai.com/v1`."""
    api_key: str | None = None
    """Sent as `Authorization: Bearer`. Default none, for engines of one's own."""


class EntraSettings(
    Discreet, msgspec.Struct, frozen=True, forbid_unknown_fields=True, kw_only=True
):
    """An identity of Microsoft Entra in a key's place (extra `azure`)."""

    identity: Literal["client_secret", "managed", "workload"] = "managed"
    """`managed`: the one that Azure gave this machine; `workload`: the one that Kubernetes gave
    this pod; `client_secret`: an application's, with the three fields below. Default managed."""
    tenant_id: str | None = None
    """Directory of the identity. Default none: `workload` reads it from the environment."""
    client_id: str | None = None
    """Application, or the user-assigned managed identity. Default none: the machine's own."""
    client_secret: str | None = None
    """The application's secret; best as ${NAME}."""
    scope: str = "https://cognitiveservices.azure.com/.default"
    """What the token is for. Default: Azure's AI services in the public cloud."""

    def __post_init__(self) -> None:
        if self.identity == "client_secret" and not (
            self.tenant_id and self.client_id and self.client_secret
        ):
            raise ValueError("`client_secret` needs tenant_id, client_id and client_secret")


class AzureSettings(RemoteSettings, frozen=True, kw_only=True, tag="azure", tag_field="kind"):
    """A resource of Azure OpenAI; `models` maps clients' names to its deployments."""

    endpoint: Annotated[str, msgspec.Meta(pattern="^https?://[^/]+/?$")]
    """The resource: `https://NAME.openai.azure.com`, no path."""
    api_version: str | None = "2024-10-21"
    """Version of the API of deployments: chats, completions, embeddings. Default 2024-10-21,
    the last dated one that is generally available; null asks for these at `/openai/v1` too."""
    api_key: str | None = None
    """One of the resource's keys. Default none: `entra` says who we are."""
    entra: EntraSettings | None = None
    """Identity whose tokens are sent in place of a key."""

    def __post_init__(self) -> None:
        if (self.api_key is None) == (self.entra is None):
            raise ValueError("either `api_key` or `entra` must say who we are, and not both")


class LiteLLMSettings(
    Discreet,
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


class RegistrySettings(msgspec.Struct, frozen=True, forbid_unknown_fields=True, kw_only=True):
    """A bucket that adapters come from."""

    url: Annotated[str, msgspec.Meta(pattern="^[a-z0-9]+://")]
    """What `headrace-trainer --registry` names: s3://bucket/prefix, gs://…, az://…."""
    options: dict[str, str] = {}
    """Options of the bucket, as obstore names them (`endpoint`, `region`, `access_key_id`, …).
    Default: what the environment says (AWS_…, GOOGLE_…, AZURE_…)."""
    every_s: Annotated[float, msgspec.Meta(ge=0.1)] = 3
    """Seconds between two looks at its champions. Default 3: a roll-back must be everywhere within
    10 s, and a look is one small request."""


class LocalSettings(msgspec.Struct, frozen=True, forbid_unknown_fields=True, kw_only=True):
    """What all backends with adapters have in common."""

    adapters: Path = msgspec.field(default_factory=lambda: Path("adapters"))
    """Directory of the adapter bundles and of champions.json, as the proxy sees it: which of them
    serves which domain."""
    registry: RegistrySettings | None = None
    """Bucket that the directory follows: bundles that its champion file names are copied into it,
    and those that it names no more are removed. Default none: somebody else writes the directory.
    Needs the extra `bucket`."""
    signed_by: list[str] = []
    """Public keys, as `headrace-trainer registry keygen` prints them, or `file:PATH`: only bundles
    that one of them signed are loaded. Default none: all are. Needs the extra `signed`."""


class EmbeddedSettings(LocalSettings, frozen=True, kw_only=True, tag="embedded", tag_field="kind"):
    """A small model with its adapters on this machine's processor (extra `embedded`)."""

    base_model: str
    """Id of a packaged base model (`smollm2-135m-instruct`), or the path of a .gguf file."""
    memory_limit_mib: Annotated[int, msgspec.Meta(ge=256)] = 3072
    """Memory for loaded models in MiB; above it the one that was used longest ago is unloaded.
    Default 3072: a 135M base with up to eight adapters, and its successor while they change."""
    max_waiting: Annotated[int, msgspec.Meta(ge=1)] = 64
    """Requests that may wait or run at once; one more goes to the next backend. Default 64: at some
    5 requests a second and core pair, what waits longer than that has timed out."""
    preload: bool = True
    """Load the champions at start. Default true: else the first request of each waits seconds."""
    threads: Annotated[int, msgspec.Meta(ge=1)] | None = None
    """Threads with which each loaded model computes. Default: all cores, as one model answers for
    up to eight adapters. With more, several models may be busy at once and wait for each other:
    then fewer threads each are quicker (docs/LOG.md)."""


class EngineSettings(Discreet, LocalSettings, frozen=True, kw_only=True):
    """What all engines on other machines have in common; the kinds below add their own."""

    replicas: Annotated[list[_Url], msgspec.Meta(min_length=1)]
    """Servers that serve the same base model and adapters, each as `http://host:port`, no path. A
    name that resolves to several addresses is as many servers."""
    pool: PoolSettings = PoolSettings()
    """How the servers are chosen, watched and restarted."""
    base_model: str
    """Id of the base model, as the adapters' manifests name it."""
    tokenizer: Path | None = None
    """The base model's `tokenizer.json`, or the directory that holds it. Default: the tokenizer of
    the packaged base model of that id."""
    plain: Literal["hermes", "llama3"] = "llama3"
    """Format in which the base model is offered tools where no adapter answers; its family's chat
    template serves requests without tools. `llama3` for Llama 3.x, `hermes` for ChatML models."""
    adapters_there: str | None = None
    """The same directory as the servers see it, for loading adapters or restarting with them.
    Default: the absolute path of `adapters`."""
    mode: Literal["native", "chat"] = "native"
    """`native`: we render the prompt with the bundle's template and read the calls ourselves, so
    that an adapter sees what it was trained on. `chat`: the engine does both, for adapters that
    were trained against its own template."""
    context: Annotated[int, msgspec.Meta(ge=256)] = 8192
    """Tokens that prompt and answer may have together: the engine's own limit. Default 8192, what
    the launch lines in docs/engines.md allow."""
    max_tokens: Annotated[int, msgspec.Meta(ge=1)] = 1024
    """Longest answer in tokens when the client sets no limit. Default 1024: TGI reserves memory for
    all of it at once, and a tool call needs some 100."""
    max_in_flight: Annotated[int, msgspec.Meta(ge=1)] = 32
    """Requests at once on one replica. Default 32: 0.6 of the 2048-token sequences that fit beside
    four adapters and a 4-bit 8B model on a 24 GB card; vLLM itself would queue without bound."""
    connect_s: Annotated[float, msgspec.Meta(gt=0)] = 2
    """Seconds until a connection must stand. Default 2: engines stand in the same network."""
    first_token_s: Annotated[float, msgspec.Meta(gt=0)] = 20
    """Seconds from the request to the first piece of its answer, the engine's queue included.
    Default 20: past that the plan's next backend is faster."""
    stall_s: Annotated[float, msgspec.Meta(gt=0)] = 10
    """Seconds between two pieces. Default 10: a full batch gives some pieces a second, a prompt of
    8192 tokens that joins it costs the others 2 or 3 s."""
    total_s: Annotated[float, msgspec.Meta(gt=0)] = 300
    """Seconds for the whole answer. Default 300: 1024 tokens at 4 a second."""
    api_key: str | None = None
    """What the servers were started with as `--api-key`. Default none."""
    constrain: bool
    """Whether the engine holds answers to the request's schemas while it writes them."""


class TgiSettings(EngineSettings, frozen=True, kw_only=True, tag="tgi", tag_field="kind"):
    """Servers that run Hugging Face's text-generation-inference, 3.2 or later."""

    constrain: bool = False
    """Native mode: whether `response_format` goes to TGI as a grammar. Default false: TGI compiles
    a grammar while all other requests wait. Chat mode cannot do without."""


class VllmSettings(EngineSettings, frozen=True, kw_only=True, tag="vllm", tag_field="kind"):
    """Servers that run vLLM, or SGLang."""

    flavor: Literal["vllm", "sglang"] = "vllm"
    """`sglang` names adapters and loads them as SGLang does, and leaves answers unconstrained."""
    served_model: str | None = None
    """Name under which the servers know the base model. Default: `base_model`."""
    constrain: bool = True
    """Whether calls are held to the offered tools' schemas while they are written."""


CloudSettings: TypeAlias = OpenAISettings | AzureSettings | LiteLLMSettings
BackendSettings: TypeAlias = CloudSettings | EmbeddedSettings | TgiSettings | VllmSettings
KINDS = ("azure", "embedded", "litellm", "openai", "tgi", "vllm")
