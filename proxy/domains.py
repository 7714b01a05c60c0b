"""What routes.yaml says of domains: whose requests they take, who answers, what is checked."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Annotated, Literal, TypeAlias, get_args

import msgspec

from proxy.claims import is_sound, may_overlap
from proxy.comparison import AssignBy, Canary, Shadow, Share
from proxy.protocol.exchange import Level
from proxy.protocol.openai import ChatRequest

Verify: TypeAlias = Literal["off", "observe", "enforce"]
Trigger: TypeAlias = Literal[
    "unavailable", "overloaded", "timeout", "context", "invalid", "low_confidence"
]
Drift: TypeAlias = Literal["serve", "observe", "fallback"]
Vacant: TypeAlias = Literal["base", "next"]


class Repair(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """What is tried before an invalid local answer is given up."""

    lossless: bool = True
    """Put right what is wrong in form only: `"3"` for 3, one value for a list of one, the case of
    an enum's member, JSON with single quotes. Default true: nothing is guessed."""
    ask_again: bool = True
    """Ask the same backend once more, held to the tools' schemas and told what was wrong. Default
    true: a second local answer costs less than a cloud's."""


class Fallback(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """When the next backend of the plan is asked, before the client has seen anything."""

    when: tuple[Trigger, ...] = get_args(Trigger)
    """Kinds of failures. Default: all of them. `[]` keeps every request where it is."""
    most: Annotated[int, msgspec.Meta(ge=0)] = 3
    """Backends that are asked after the first one, at most. Default 3."""
    share: Share = 0.5
    """Part of the time left that an attempt gets while another backend may follow. Default 0.5: a
    slow first backend leaves the second one as long as it has had itself."""


class Hedge(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """Ask the next backend too when the first one is slow; the first good answer wins."""

    after_s: Annotated[float, msgspec.Meta(gt=0)] | None = None
    """Seconds without anything to send. Default none: the 95th percentile of this domain's last
    answers, once there are 20 of them."""
    share: Share = 0.05
    """Part of the requests that may be asked twice. Default 0.05: what a 95th percentile means."""


class CacheSettings(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """Whether a request that asks for the same answer each time is given the one that is kept."""

    max_mib: Annotated[float, msgspec.Meta(gt=0)] = 64
    """Memory in MiB for the answers of this domain; those used longest ago make room. Default 64:
    some 50 000 tool calls."""
    ttl_s: Annotated[float, msgspec.Meta(gt=0)] = 3600
    """Seconds after which an answer is asked for anew. Default 3600, chosen: what a cloud's model
    says can change without its name."""


class Match(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """Requests without tools that belong to a domain: all that is given must hold."""

    models: list[str] = []
    """Names that the client may have asked for. Default: any."""
    headers: dict[str, str] = {}
    """Headers that it sent, whatever their case, with exactly these values. Default none."""
    metadata: dict[str, str] = {}
    """Entries of the request's `metadata`. Default none."""

    def __post_init__(self) -> None:
        if not (self.models or self.headers or self.metadata):
            raise ValueError("an empty `match` would take every request; use `defaults.chat`")

    def holds(self, request: ChatRequest, headers: Mapping[bytes, bytes]) -> bool:
        """Whether the request is one of these; `headers` has lower-case names."""
        if self.models and request.model not in self.models:
            return False
        for name, value in self.headers.items():
            if headers.get(name.lower().encode("latin-1")) != value.encode():
                return False
        return not self.metadata or self.metadata.items() <= _metadata(request).items()


def _metadata(request: ChatRequest) -> Mapping[str, object]:
    try:
        return msgspec.json.decode(request.metadata, type=dict[str, str])
    except ValueError:
        return {}


class Domain(msgspec.Struct, frozen=True, forbid_unknown_fields=True, kw_only=True):
    """A kind of request, told by its tools, and who answers it."""

    plan: list[str]
    """Backends in order: the next one is asked when one fails before the client saw anything."""
    tools: list[str] = []
    """Names, globs (`*`, `?`, `[0-9]`) or fingerprints (`sha256:…`) of the domain's tools. Default:
    none, for domains that only `defaults` names."""
    tenants: list[str] = []
    """Tenants that the domain, and so its adapters, belong to: for all others it does not exist.
    Default: it is everybody's."""
    match: Match | None = None
    """Requests without tools that belong to the domain, such as questions to an expert. The first
    domain in the file that matches wins. Default: none but those of `defaults.chat`."""
    without_champion: Vacant = "base"
    """Who answers in the place of a backend with adapters while the domain has no champion there:
    its `base` model, or the `next` backend of the plan, where there is one. Default base."""
    verify: Verify = "enforce"
    """Tool calls that a local engine makes are checked against the request's schemas. `enforce`:
    an invalid call never reaches the client; `observe`: it does, and is recorded; `off`: no check.
    Default enforce: a wrong call costs the client more than a second attempt."""
    constrain: bool = True
    """Whether local engines may only write calls that fit the offered schemas. Default true."""
    repair: Repair = Repair()
    """What is tried before an invalid local answer is given up."""
    fallback: Fallback = Fallback()
    """When the next backend of the plan is asked."""
    hedge: Hedge | None = None
    """Whether a slow first backend is raced by the next one. Default none: it costs twice."""
    samples: Annotated[int, msgspec.Meta(ge=1, le=16)] = 1
    """Local answers to one request with tools, of which the call that most agree on is given;
    without a majority the next backend is asked. Default 1: k samples cost k times."""
    sample_temperature: Annotated[float, msgspec.Meta(gt=0, le=2)] = 0.7
    """Temperature of these samples where the client sets none above 0. Default 0.7, usual."""
    floor: Share | Literal["auto"] | None = None
    """Probability that the engine must give to a call, 0 to 1; a call below it is asked of the next
    backend. `auto` takes it from the adapter's calibration and `target_disagreement`; an adapter
    without one has no floor. Default none: it costs cloud calls, and gains only what was measured.
    """
    target_disagreement: Share = 0.05
    """Share of the calls given that may be wrong, as `floor: auto` understands it. Default 0.05."""
    drift: Drift = "observe"
    """What becomes of requests in which a tool has another schema than its adapter was trained
    with: `serve` asks the adapter all the same, `observe` also says so in log and record,
    `fallback` asks the next backend. Default observe: most changes are harmless, and the answer is
    verified."""
    cache: CacheSettings | None = None
    """Whether answers are given again. Default none: a client may count on a new one each time."""
    shadow: Shadow | None = None
    """Whether another backend is asked too, out of the client's sight. Default none: it costs."""
    split: dict[str, Share] = {}
    """Backends of the plan, and the part of the requests that each is to answer first; together 1.
    Default none: the plan's order holds for all."""
    canary: Canary | None = None
    """Whether another adapter than the champion answers a part of the requests. Default none."""
    assign_by: AssignBy = "conversation"
    """What stays on its side of a split or canary: a `conversation`, or all of a `caller`. Default
    conversation: there are more of them, so that sides come out even."""
    deadline_s: Annotated[float, msgspec.Meta(gt=0)] | None = None
    """As `limits.deadline_s`, for this domain. Default none: that one."""
    record: Level | None = None
    """How much of its exchanges is kept, at most: `full`, `metadata` or `off`. Default: as for all.
    """
    obey_store: bool = False
    """Whether a request with `store: false` is not recorded. Default no: `store` is about what the
    cloud keeps."""

    def __post_init__(self) -> None:
        for tool in self.tools:
            if not is_sound(tool):
                raise ValueError(f"{tool!r} is no fingerprint: `sha256:` and 64 hexadecimal digits")


class RouterSettings(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """A model that tells the domain by the question: `headrace-trainer router train` makes it."""

    model: Path
    """Its file."""
    target_error: Share = 0.05
    """Share of the guesses followed that may be wrong. How sure the model must be for that is in
    its file, measured on held-out questions; below it the default applies. Default 0.05."""
    without_tools: bool = False
    """Whether it also places requests without tools that no `match` takes. Default no: only those
    of `mixed: predict`."""


class Defaults(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """Domains of requests that no tool places."""

    tools: str
    """Domain of requests whose tools are unknown."""
    chat: str
    """Domain of requests without tools."""
    mixed: str | None = None
    """Domain of requests whose tools belong to several domains: one whose plan is a cloud, or a
    general adapter; or `predict`: the one among them that the router model finds likeliest, and
    that of `tools` where it is not sure. Default: that of `tools`."""
    router: RouterSettings | None = None
    """The model behind `predict`. Default none."""


PREDICT = "predict"
"""What `mixed` says in a domain's place."""


def clashes(domains: Mapping[str, Domain]) -> Iterator[str]:
    """Tool names and fingerprints that two domains claim, as sentences. Globs may overlap: the
    first one in the file wins."""
    seen: dict[str, str] = {}
    for domain, tool in tools_of(domains):
        if not may_overlap(tool) and seen.setdefault(tool, domain) != domain:
            yield f"the tool {tool!r} belongs to both {seen[tool]!r} and {domain!r}"


def tools_of(domains: Mapping[str, Domain]) -> Iterator[tuple[str, str]]:
    """Each domain with each of the tools that it names."""
    for name, domain in domains.items():
        for tool in domain.tools:
            yield name, tool
