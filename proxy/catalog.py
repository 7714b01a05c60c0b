"""Which adapter answers for a domain now: the champions of each adapters directory.

Bundles are read and found whole at start; one that is corrupt, or made for other weights, keeps
the proxy from starting rather than spoil answers quietly. Champions that come later are put in
place by `flip`, once rollout.py has prepared them.
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterator, Mapping, Sequence
from pathlib import Path
from typing import NamedTuple

import structlog

from proxy.backends.base import Backend
from proxy.comparison import draw, side
from proxy.domains import Domain, Drift
from proxy.errors import BackendUnavailable, BadRequest, CannotStart, Unsupported
from proxy.protocol import champions as champion_file
from proxy.protocol.adapter import MANIFEST, Adapter, AdapterError, is_unchanged, read
from proxy.protocol.champions import CHAMPIONS, Alias
from proxy.protocol.fingerprints import fingerprint
from proxy.protocol.openai import ChatRequest
from proxy.protocol.parity import ParityError, prove, rendering
from proxy.protocol.signature import Trusted
from proxy.routing import Route

log = structlog.get_logger(__name__)

PIN_BASE = "base"
"""Pins the base model, asked as the domain's adapter would be."""


_VACANT = "no_champion"
"""Why the route's first backend is passed over: it waits for a champion (`without_champion`)."""


class BadAdapter(CannotStart):
    """An adapter bundle or champion file that cannot be used."""


class Base(NamedTuple):
    """The base model that adapters must have been made for."""

    id: str
    sha256: str | None
    """None where the weights are on other machines: their engines prove each adapter themselves."""
    tokenizer_sha256: str
    encode: Callable[[str], list[int]] | None = None
    """Its tokenizer, with which each adapter's requests must become the ids of its training; None:
    it is not proven here."""


class Champions(NamedTuple):
    """What one adapters directory holds."""

    by_domain: Mapping[str, Adapter]
    """Domain → the adapter that serves it."""
    by_id: Mapping[str, Adapter]
    """Every sound bundle, candidates included: these may be pinned."""
    aliases: Mapping[str, Alias] = {}
    """What the champion file says of each of the domains."""

    @classmethod
    def read(
        cls,
        directory: Path,
        base: Base,
        domains: Collection[str],
        trusted: Trusted | None = None,
        known: Mapping[str, Adapter] | None = None,
    ) -> Champions:
        """The champions of these domains; raises BadAdapter, with the file and the remedy.

        A domain without a champion is answered by the base model. `trusted`: whose bundles are
        read; None: anybody's. Bundles that are `known` by their manifest are taken as they are:
        hashing many large ones takes a while.
        """
        shelf = _Shelf(directory, base, trusted, known or {})
        try:
            named = champion_file.read(directory)
            wanted = {d: named.serving[d] for d in domains if d in named.serving}
            champions = {domain: shelf.read(id) for domain, id in wanted.items()}
        except AdapterError as error:
            raise BadAdapter(str(error)) from error
        others = shelf.others({adapter.id for adapter in champions.values()})
        return cls(
            champions,
            {adapter.id: adapter for adapter in (*champions.values(), *others)},
            {domain: named.domains[domain] for domain in domains if domain in named.domains},
        )

    @property
    def adapters(self) -> list[Adapter]:
        """Each adapter once, in the order of the domains."""
        return list({adapter.id: adapter for adapter in self.by_domain.values()}.values())

    @property
    def kept(self) -> list[Adapter]:
        """Those beside the champions that shall stay loaded: candidates, and the former champion
        while a new one is watched."""
        ids = [id for alias in self.aliases.values() for id in _beside(alias)]
        return [self.by_id[id] for id in dict.fromkeys(ids) if id in self.by_id]


class Candidate(NamedTuple):
    """A backend, and the adapter that it shall answer with."""

    backend: Backend
    adapter: Adapter | None
    bare: bool = False
    """Whether the base model answers in the adapter's stead."""

    @property
    def answers_as(self) -> str | None:
        """Id of the adapter whose weights answer."""
        return None if self.adapter is None or self.bare else self.adapter.id


class Plan(NamedTuple):
    """Who is asked, in order; at least one."""

    candidates: list[Candidate]
    passed_over: str | None
    """Why the route's first backend is not asked, as a code; None when it is."""
    drifted: Sequence[str] = ()
    """Tools whose schema is another one than the first adapter was trained with."""
    assigned: str = ""
    """The side of a split or canary that the request was put on; empty where none had a say."""

    def without(self, reason: str) -> Plan:
        """The plan without its first backend; the same where there is no other."""
        if len(self.candidates) < 2:
            return self
        return self._replace(candidates=self.candidates[1:], passed_over=self.passed_over or reason)


_NO_PLAN: tuple[Domain | None, Plan] = (None, Plan([], None))


class Proven(NamedTuple):
    """A canary that its backend can answer as."""

    backend: str
    adapter: Adapter
    share: float
    """Part of the conversations that it answers, 0 to 1."""
    shadow: float = 0.0
    """Part of those that it is asked about when the client has its answer from somebody else."""


class Catalog:
    """Who can answer: the backends, and the champions of those that have adapters."""

    def __init__(self, backends: Mapping[str, Backend], champions: Mapping[str, Champions]) -> None:
        self.backends = backends
        self._champions = dict(champions)
        self._canaries: dict[str, Proven] = {}
        self._plans: dict[str, tuple[Domain, Plan]] = {}
        """Domain → its policy, and its plan where nothing depends on the request; until champions
        change."""

    def flip(self, backend: str, champions: Champions) -> None:
        """From now on these answer; requests under way keep the adapter that they were given."""
        self._champions[backend] = champions
        self._plans.clear()

    def admit_canary(self, domain: str, canary: Proven) -> None:
        """From now on this adapter gets its share of the domain."""
        self._canaries[domain] = canary

    def withdraw_canary(self, domain: str) -> None:
        """From now on the champion answers all."""
        self._canaries.pop(domain, None)

    def canary(self, domain: str) -> Proven | None:
        """What gets a share of the domain now."""
        return self._canaries.get(domain)

    def draws(self, route: Route) -> bool:
        """Whether it matters who asks: the sides of a split or canary are drawn by that."""
        return bool(route.policy.split) or route.domain in self._canaries

    def champions(self, backend: str) -> Champions:
        """What a backend that has adapters answers with now."""
        return self._champions[backend]

    @property
    def adapters(self) -> dict[str, Mapping[str, Adapter]]:
        """Backend → id → each sound bundle that it has, of the backends that have adapters."""
        return {name: champions.by_id for name, champions in self._champions.items()}

    def plan(self, route: Route, request: ChatRequest, who: str = "") -> Plan:
        """The route's backends that can serve the request, in order.

        `who` decides the side of a split or canary: the same who, the same side. Raises
        Unsupported, with the field that no backend can serve.
        """
        lacks = {name: self.backends[name].lacks(request) for name in route.plan}
        if any(lacks.values()) or self.draws(route):
            plan = self._made(route, lacks, request, who)
        else:
            policy, plan = self._plans.get(route.domain, _NO_PLAN)
            if policy is not route.policy:
                plan = self._made(route, lacks, request, who)
                self._plans[route.domain] = route.policy, plan
        return _watching_drift(plan, route.policy.drift, request)

    def _made(
        self, route: Route, lacks: Mapping[str, str | None], request: ChatRequest, who: str
    ) -> Plan:
        able = [name for name, field in lacks.items() if field is None]
        if not lacks:
            raise BackendUnavailable(f"the domain {route.domain!r} has no backend")
        if not able:
            raise _unsupported(lacks)
        first = lacks[route.plan[0]]
        passed_over = None if first is None else f"unsupported_{first}"
        if vacant := self._vacant(route, able):
            passed_over = passed_over or (_VACANT if able[0] in vacant else None)
            able = [name for name in able if name not in vacant]
        able, assigned = self._split(route, able, request, who)
        candidates = [
            Candidate(self.backends[name], self.champion(name, route.domain)) for name in able
        ]
        return self._with_canary(Plan(candidates, passed_over, assigned=assigned), route, who)

    def _vacant(self, route: Route, able: list[str]) -> set[str]:
        """The backends that wait for a champion; none where nobody else could answer."""
        if route.policy.without_champion == "base":
            return set()
        vacant = {
            name
            for name in able
            if name in self._champions and self.champion(name, route.domain) is None
        }
        return vacant if len(vacant) < len(able) else set()

    def _split(
        self, route: Route, able: list[str], request: ChatRequest, who: str
    ) -> tuple[list[str], str]:
        """The backends in the order of the request's side, and that side.

        A request that only one side could answer is on none: it would tell them apart by what they
        are asked, and not by how they answer.
        """
        split, domain = route.policy.split, route.domain
        if not split or not all(name in able for name in split):
            return able, ""
        adapters = (self.champion(name, domain) for name in split)
        if route.policy.drift == "fallback" and any(_drifted(one, request) for one in adapters):
            return able, ""
        first = side(split, draw("split", domain, who))
        return [first, *(name for name in able if name != first)], f"split:{first}"

    def _with_canary(self, plan: Plan, route: Route, who: str) -> Plan:
        """The plan, its first adapter the canary where chance says so."""
        first, canary = plan.candidates[0], self._canaries.get(route.domain)
        if canary is None or not canary.share:
            return plan
        is_first = plan.passed_over == _VACANT and canary.backend in route.plan
        if first.backend.name != canary.backend and not is_first:
            return plan
        if draw("canary", route.domain, who) >= canary.share:
            return plan._replace(assigned=f"champion:{first.answers_as or PIN_BASE}")
        chosen = Candidate(self.backends[canary.backend], canary.adapter)
        # Where nobody else is left, the champion steps in for a canary that fails.
        others = plan.candidates if is_first else plan.candidates[1:] or [first]
        return Plan([chosen, *others], None, assigned=f"canary:{canary.adapter.id}")

    def pinned(self, route: Route, pin: str) -> Plan:
        """The first backend of the route that has adapters, answering with the one that is named.

        Raises BadRequest when none of them has it.
        """
        for name in route.plan:
            if name in self._champions:
                return Plan([self._pinned(name, route.domain, pin)], None)
        raise BadRequest(f"no backend of the domain {route.domain!r} has adapters")

    def only(self, route: Route, backend: str) -> Plan:
        """One backend of any route, answering for this domain; BadRequest when there is none."""
        if backend not in self.backends:
            raise BadRequest(f"no backend {backend!r} here; known: {', '.join(self.backends)}")
        champion = self.champion(backend, route.domain)
        return Plan([Candidate(self.backends[backend], champion)], None)

    def _pinned(self, backend: str, domain: str, pin: str) -> Candidate:
        if pin == PIN_BASE:
            return Candidate(self.backends[backend], self.champion(backend, domain), bare=True)
        known = self._champions[backend].by_id
        if pin not in known:
            raise BadRequest(
                f"no adapter {pin!r} here; known: {', '.join(sorted(known)) or 'none'}"
            )
        return Candidate(self.backends[backend], known[pin])

    def champion(self, backend: str, domain: str) -> Adapter | None:
        """The adapter that answers for a domain; None where the base model, or a cloud, does."""
        if backend not in self._champions:
            return None
        return self._champions[backend].by_domain.get(domain)


def _watching_drift(plan: Plan, drift: Drift, request: ChatRequest) -> Plan:
    drifted = [] if drift == "serve" else _drifted(plan.candidates[0].adapter, request)
    if not drifted:
        return plan
    watched = plan._replace(drifted=drifted)
    return watched.without("schema_drift") if drift == "fallback" else watched


def _drifted(adapter: Adapter | None, request: ChatRequest) -> list[str]:
    """Tools whose schema is another one than the adapter was trained with."""
    trained = {} if adapter is None else adapter.manifest.tool_fingerprints
    return [
        function.name
        for function in request.offered
        if function.name in trained and trained[function.name] != fingerprint(function)
    ]


def _unsupported(lacks: Mapping[str, str | None]) -> Unsupported:
    field = next(field for field in lacks.values() if field is not None)
    return Unsupported(
        f"{field!r}, as this request uses it, cannot be served by {', '.join(lacks)}; a backend of"
        " kind 'openai' in the domain's plan could (routes.yaml)",
        field,
    )


def _beside(alias: Alias) -> list[str]:
    candidate = alias.candidate
    if candidate is None:
        return []
    former = [alias.previous] if candidate.stage == "full" and alias.previous else []
    return [candidate.adapter, *former]


class _Shelf(NamedTuple):
    """A directory of bundles, and what is asked of those that are read."""

    directory: Path
    base: Base
    trusted: Trusted | None
    known: Mapping[str, Adapter]

    def read(self, id: str) -> Adapter:
        """The bundle with this id; raises AdapterError."""
        path = self.directory / id
        if path.parent != self.directory or id == "..":
            raise AdapterError(f"{self.directory / CHAMPIONS}: {id!r} is no adapter id")
        if id in self.known and is_unchanged(self.known[id]):
            return self.known[id]
        adapter = read(path, self.trusted)
        _check_base(adapter, self.base)
        return adapter

    def others(self, champions: set[str]) -> Iterator[Adapter]:
        """The sound bundles beside the champions; a broken one serves nobody and is only
        reported."""
        for manifest in sorted(self.directory.glob(f"*/{MANIFEST}")):
            id = manifest.parent.name
            # A name with a dot is a bundle that is still being written.
            if id in champions or id.startswith("."):
                continue
            try:
                yield self.read(id)
            except AdapterError as error:
                log.warning("adapter_skipped", reason=str(error))


def _check_base(adapter: Adapter, base: Base) -> None:
    manifest = adapter.manifest
    if base.sha256 is None and manifest.base_model != base.id:
        raise AdapterError(
            f"{adapter.path}: made for {manifest.base_model}, but the engine serves {base.id};"
            " give each base model a directory of adapters of its own"
        )
    if base.sha256 is not None and manifest.base_sha256 != base.sha256:
        raise AdapterError(
            f"{adapter.path}: made for other weights of {manifest.base_model} than the installed"
            f" {base.id}; train it again, or install those weights"
        )
    if manifest.tokenizer_sha256 != base.tokenizer_sha256:
        raise AdapterError(
            f"{adapter.path}: made with another tokenizer than {base.id} has now; train it again"
        )
    if base.encode is not None:
        try:
            prove(adapter.parity, rendering(adapter.templates, base.encode))
        except ParityError as error:
            raise AdapterError(f"{adapter.path}: {error}") from error
