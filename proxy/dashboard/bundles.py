"""Adapters as a page shows them: who answers for a domain, what came before and what comes next,
and what each bundle was made from. Reads the champion file; call it in a thread."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from pathlib import Path

import msgspec

from proxy.backends.settings import CloudSettings
from proxy.catalog import Catalog
from proxy.config import Config
from proxy.protocol import champions
from proxy.protocol.adapter import Adapter, AdapterError
from proxy.protocol.champions import Alias

_CHANGES = 8
"""Changes of a domain that are shown: the last ones."""


class Change(msgspec.Struct, frozen=True, kw_only=True):
    """One change of a domain's champion or candidate."""

    at: str
    who: str
    before: str
    after: str
    reason: str


class Serving(msgspec.Struct, frozen=True, kw_only=True):
    """One domain of one backend."""

    backend: str
    domain: str
    champion: str
    """Id of the adapter that answers in this process now; empty for the base model."""
    alias: Alias
    """What the champion file says: it may be ahead of the process."""
    canary: str
    """The share of a canary that routes.yaml has, `geo-v8 5 %`; empty for none."""
    changes: list[Change]


class Bundle(msgspec.Struct, frozen=True, kw_only=True):
    """One adapter, and where it comes from."""

    id: str
    backend: str
    domain: str
    base_model: str
    base_precision: str
    format: str
    created_at: str
    dataset: str
    """Fingerprint of the dataset."""
    weights: str
    """Hash of the weights."""
    seed: int
    tools: int
    metrics: list[tuple[str, float]]
    role: str
    """`champion`, `candidate`, `previous`, or empty."""


class Shelf(msgspec.Struct, frozen=True, kw_only=True):
    """All adapters that the proxy knows."""

    serving: list[Serving]
    bundles: list[Bundle]
    problems: list[str]
    """Champion files that cannot be read, and why."""


def read(config: Config, catalog: Catalog, known: Mapping[str, Mapping[str, Adapter]]) -> Shelf:
    """What serves, and every sound bundle. `known`: backend → id → bundle, as of now."""
    serving: list[Serving] = []
    problems: list[str] = []
    for backend in known:
        directory = _directory(config, backend)
        try:
            said = champions.read(directory) if directory else champions.Champions()
            serving += _serving(config, catalog, backend, directory, said)
        except AdapterError as error:
            problems.append(str(error))
    bundles = [
        _bundle(one, backend, _role(one.id, serving))
        for backend, of_backend in known.items()
        for one in of_backend.values()
    ]
    # Newest first, domain by domain.
    bundles.sort(key=lambda one: one.created_at, reverse=True)
    bundles.sort(key=lambda one: one.domain)
    return Shelf(serving=serving, bundles=bundles, problems=problems)


def _directory(config: Config, backend: str) -> Path | None:
    settings = config.backends.get(backend)
    return None if settings is None or isinstance(settings, CloudSettings) else settings.adapters


def _serving(
    config: Config,
    catalog: Catalog,
    backend: str,
    directory: Path | None,
    said: champions.Champions,
) -> Iterator[Serving]:
    for name, domain in config.domains.items():
        champion = catalog.champion(backend, name)
        alias = said.domains.get(name)
        if champion is None and alias is None:
            continue
        canary = domain.canary
        yield Serving(
            backend=backend,
            domain=name,
            champion="" if champion is None else champion.id,
            alias=alias or Alias(),
            canary="" if canary is None else f"{canary.adapter} {canary.share:.0%}",
            changes=_changes(directory, name) if directory else [],
        )


def _changes(directory: Path, domain: str) -> list[Change]:
    last = champions.history(directory, domain)[-_CHANGES:]
    return [
        Change(
            at=one.at,
            who=one.who,
            before=_told(one.before),
            after=_told(one.after),
            reason=one.reason,
        )
        for one in reversed(last)
    ]


def _told(alias: Alias | None) -> str:
    """A champion and its candidate in a few words."""
    if alias is None:
        return "nothing"
    candidate = alias.candidate
    beside = (
        f" + {candidate.adapter} ({candidate.stage} {candidate.share:.0%})" if candidate else ""
    )
    return (alias.champion or "base model") + beside


def _role(id: str, serving: list[Serving]) -> str:
    for one in serving:
        candidate = one.alias.candidate.adapter if one.alias.candidate else None
        roles = {one.champion: "champion", candidate: "candidate", one.alias.previous: "previous"}
        if id in roles:
            return roles[id]
    return ""


def _bundle(one: Adapter, backend: str, role: str) -> Bundle:
    made = one.manifest
    return Bundle(
        id=one.id,
        backend=backend,
        domain=made.domain,
        base_model=made.base_model,
        base_precision=made.base_precision,
        format=made.format,
        created_at=made.created_at,
        dataset=made.dataset_fingerprint,
        weights=made.weights_sha256,
        seed=made.seed,
        tools=len(made.tool_fingerprints),
        metrics=sorted(made.metrics.items()),
        role=role,
    )
