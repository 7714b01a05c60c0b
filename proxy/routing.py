"""The tools choose the expert: a request's tools name its domain, the domain names its backends.

A route table is made once from the settings and never changes; `match` is a dictionary look-up
without side effects, and says why it chose what it chose.
"""

from __future__ import annotations

import functools
from collections import ChainMap, defaultdict
from collections.abc import Collection, Iterable, Iterator, Mapping, Sequence
from heapq import merge
from pathlib import Path
from typing import Annotated, Literal, NamedTuple, Protocol, TypeAlias, get_args

import msgspec

from proxy.claims import Claimed, Claims, is_sound, may_overlap
from proxy.comparison import AssignBy, Canary, Shadow, Share
from proxy.errors import UnknownModel
from proxy.protocol.exchange import Level
from proxy.protocol.openai import ChatRequest, Function, Message
from proxy.protocol.toolcheck import fingerprint

Reason: TypeAlias = Literal[
    "exact", "fingerprint", "glob", "mixed", "unknown", "matched", "no_tools", "predicted"
]
Verify: TypeAlias = Literal["off", "observe", "enforce"]

_REMEMBERED = 4096
"""Tool names whose domain is kept at hand: names are at most 256 characters, so some 1 MiB."""


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


class Predictor(Protocol):
    """What guesses domains."""

    def predict(
        self, messages: Sequence[Message], among: Collection[str]
    ) -> tuple[str, float] | None: ...


class Route(NamedTuple):
    """Where a request goes, and why."""

    domain: str
    policy: Domain
    reason: Reason
    probability: float | None = None
    """How sure the router model is, 0 to 1; None where nothing was to be guessed."""

    @property
    def plan(self) -> Sequence[str]:
        """Names of the backends, in order."""
        return self.policy.plan


class _Place(NamedTuple):
    domain: str
    reason: Reason
    probability: float | None = None


class _Layer:
    """Some domains of a file, and what they claim; the tables of several tenants may share one."""

    def __init__(self, domains: Mapping[str, Domain], places: Mapping[str, int]) -> None:
        """`places`: of each domain in the file."""
        self.domains = dict(domains)
        self.claims = Claims(
            Claimed(places[domain], tool, domain) for domain, tool in _tools(domains)
        )
        self.matching = [
            (places[name], name, domain.match)
            for name, domain in domains.items()
            if domain.match is not None
        ]


class RouteTable:
    """Which domain a request belongs to. Made once, immutable."""

    def __init__(
        self,
        domains: Mapping[str, Domain],
        defaults: Defaults,
        models: Iterable[str],
        predictor: Predictor | None = None,
        *,
        places: Mapping[str, int] | None = None,
        beside: RouteTable | None = None,
    ) -> None:
        """`beside`: a table whose domains are this one's, too; `places`: of the domains of both in
        their file."""
        places = places or {name: place for place, name in enumerate(domains)}
        self._predictor = predictor
        shared = beside._layers if beside else []
        self._layers: list[_Layer] = [_Layer(domains, places), *shared]
        self._domains = ChainMap(*(layer.domains for layer in self._layers))
        self._defaults = defaults
        self._models = frozenset(models)
        self._has_fingerprints = any(layer.claims.fingerprints for layer in self._layers)
        self._named = functools.lru_cache(maxsize=_REMEMBERED)(self._by_name)

    def match(self, request: ChatRequest, headers: Mapping[bytes, bytes] | None = None) -> Route:
        """The route of a request; raises UnknownModel for a model that no client may ask for.

        `headers` has lower-case names.
        """
        self.check_model(request.model)
        if not request.tools:
            return self._route(self._without_tools(request, headers or {}))
        return self._route(self._place(request))

    def check_model(self, model: str) -> None:
        """Raise UnknownModel unless clients may ask for this one."""
        if model not in self._models:
            raise UnknownModel(_unserved(model, self._models), "model")

    def places(self, request: ChatRequest) -> list[tuple[str, str | None, Reason | None]]:
        """Each tool of a request with the domain that claims it, and why; None for no domain."""
        tools = [tool.function for tool in request.tools or () if tool.function is not None]
        places = [(function.name, self._of(function)) for function in tools]
        return [(name, place and place.domain, place and place.reason) for name, place in places]

    @property
    def without_tools(self) -> Route:
        """The route of what offers no tools, and of all that is no chat."""
        return self._route(_Place(self._defaults.chat, "no_tools"))

    def _route(self, place: _Place) -> Route:
        return Route(place.domain, self._domains[place.domain], place.reason, place.probability)

    def _without_tools(self, request: ChatRequest, headers: Mapping[bytes, bytes]) -> _Place:
        for _, domain, match in merge(*(layer.matching for layer in self._layers)):
            if match.holds(request, headers):
                return _Place(domain, "matched")
        default = _Place(self._defaults.chat, "no_tools")
        router = self._defaults.router
        if router is None or not router.without_tools:
            return default
        return self._predicted(request, self._domains) or default

    def _place(self, request: ChatRequest) -> _Place:
        places = [self._of(tool.function) for tool in request.tools or ()]
        first = places[0]
        if first is not None and all(p is not None and p.domain == first.domain for p in places):
            return first
        named = {place.domain for place in places if place is not None}
        if not named:
            return _Place(self._defaults.tools, "unknown")
        unknown = {self._defaults.tools} if None in places else set()
        return self._mixed(request, named | unknown)

    def _mixed(self, request: ChatRequest, among: Collection[str]) -> _Place:
        mixed = self._defaults.mixed or self._defaults.tools
        if mixed != PREDICT:
            return _Place(mixed, "mixed")
        return self._predicted(request, among) or _Place(self._defaults.tools, "mixed")

    def _predicted(self, request: ChatRequest, among: Collection[str]) -> _Place | None:
        if self._predictor is None:
            return None
        found = self._predictor.predict(request.messages, among)
        return found and _Place(found[0], "predicted", found[1])

    def _of(self, function: Function | None) -> _Place | None:
        """The most precise statement wins: a schema's fingerprint, then a name, then a glob."""
        if function is None:
            return None
        if self._has_fingerprints:
            known = fingerprint(function)
            for layer in self._layers:
                if known in layer.claims.fingerprints:
                    return _Place(layer.claims.fingerprints[known], "fingerprint")
        return self._named(function.name)

    def _by_name(self, name: str) -> _Place | None:
        claims = [layer.claims for layer in self._layers]
        found = [one.exact[name] for one in claims if name in one.exact]
        found = found or [claim for one in claims if (claim := one.by_glob(name))]
        first = min(found, default=None)
        return None if first is None else _Place(first.domain, first.reason)


class Routes:
    """The route table of each tenant: of a domain that is not its own it sees nothing."""

    def __init__(
        self,
        domains: Mapping[str, Domain],
        defaults: Defaults,
        models: Iterable[str],
        predictor: Predictor | None = None,
    ) -> None:
        names = list(models)
        places = {name: place for place, name in enumerate(domains)}
        owned: dict[str, dict[str, Domain]] = defaultdict(dict)
        for name, domain in domains.items():
            for tenant in domain.tenants:
                owned[tenant][name] = domain
        shared = {name: domain for name, domain in domains.items() if not domain.tenants}
        self._others = RouteTable(shared, defaults, names, predictor, places=places)
        self._own = {
            tenant: RouteTable(own, defaults, names, predictor, places=places, beside=self._others)
            for tenant, own in owned.items()
        }

    def of(self, tenant: str) -> RouteTable:
        """The domains that a tenant may use."""
        return self._own.get(tenant, self._others)


def clashes(domains: Mapping[str, Domain]) -> Iterator[str]:
    """Tool names and fingerprints that two domains claim, as sentences. Globs may overlap: the
    first one in the file wins."""
    seen: dict[str, str] = {}
    for domain, tool in _tools(domains):
        if not may_overlap(tool) and seen.setdefault(tool, domain) != domain:
            yield f"the tool {tool!r} belongs to both {seen[tool]!r} and {domain!r}"


def _tools(domains: Mapping[str, Domain]) -> Iterator[tuple[str, str]]:
    for name, domain in domains.items():
        for tool in domain.tools:
            yield name, tool


def _unserved(model: str, models: Iterable[str]) -> str:
    known = ", ".join(sorted(models))
    return f"The model {model[:64]!r} does not exist here; this server answers: {known}"
