"""The tools choose the expert: a request's tools name its domain, the domain names its backends.

A route table is made once from the settings and never changes; `match` is a dictionary look-up
without side effects, and says why it chose what it chose.
"""

from __future__ import annotations

import functools
from collections import ChainMap, defaultdict
from collections.abc import Collection, Iterable, Mapping, Sequence
from heapq import merge
from typing import Literal, NamedTuple, Protocol, TypeAlias

from proxy.claims import Claimed, Claims
from proxy.domains import PREDICT, Defaults, Domain, tools_of
from proxy.errors import UnknownModel
from proxy.protocol.fingerprints import fingerprint
from proxy.protocol.openai import ChatRequest, Function, Message

Reason: TypeAlias = Literal[
    "exact", "fingerprint", "glob", "mixed", "unknown", "matched", "no_tools", "predicted"
]

_REMEMBERED = 4096
"""Tool names whose domain is kept at hand: names are at most 256 characters, so some 1 MiB."""


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
            Claimed(places[domain], tool, domain) for domain, tool in tools_of(domains)
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


def _unserved(model: str, models: Iterable[str]) -> str:
    known = ", ".join(sorted(models))
    return f"The model {model[:64]!r} does not exist here; this server answers: {known}"
