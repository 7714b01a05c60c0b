"""The backends that routes.yaml names, made and started, and what those with adapters have."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Mapping
from contextlib import AsyncExitStack, aclosing, asynccontextmanager
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from proxy.backends import entra, http, litellm
from proxy.backends.azure import AzureBackend
from proxy.backends.base import Backend
from proxy.backends.openai import OpenAIBackend
from proxy.backends.settings import (
    AzureSettings,
    EmbeddedSettings,
    LiteLLMSettings,
    LocalSettings,
    OpenAISettings,
    TgiSettings,
    VllmSettings,
)
from proxy.beside import beside, missing
from proxy.catalog import BadAdapter, Base, Champions
from proxy.config import Config
from proxy.domains import Domain
from proxy.preparing import LocalRollout, PoolRollout
from proxy.protocol.adapter import Adapter
from proxy.protocol.signature import Trusted
from proxy.registry import Follower, trusted
from proxy.restart import restarter
from proxy.rollout import Source, stamp

if TYPE_CHECKING:
    from proxy.backends.embedded.backend import EmbeddedBackend
    from proxy.backends.replicas import Replicas

_SETTLING = 30.0
"""Seconds that the start waits for engines elsewhere to be well and prove their adapters. Chosen:
what takes longer joins when it is there; until then the plan's next backend answers."""


@dataclass(frozen=True, slots=True)
class Fleet:
    """The backends, by name, and what belongs to those that have adapters."""

    backends: dict[str, Backend] = field(default_factory=dict)
    champions: dict[str, Champions] = field(default_factory=dict)
    sources: dict[str, Source] = field(default_factory=dict)
    pools: dict[str, Replicas] = field(default_factory=dict)


async def start(config: Config, stack: AsyncExitStack) -> Fleet:
    """All backends, running; closed again with `stack`."""
    fleet = Fleet()
    for name, settings in config.backends.items():
        match settings:
            case OpenAISettings():
                cloud = _openai(name, settings)
                fleet.backends[name] = await stack.enter_async_context(aclosing(cloud))
            case AzureSettings():
                azure = await stack.enter_async_context(_azure(name, settings))
                fleet.backends[name] = await stack.enter_async_context(aclosing(azure))
            case LiteLLMSettings():
                other = await asyncio.to_thread(litellm.build, name, settings)
                fleet.backends[name] = await stack.enter_async_context(aclosing(other))
            case EmbeddedSettings():
                await _Local(name, settings, config.domains).join(fleet, stack)
            case TgiSettings() | VllmSettings():
                await _Engine(name, settings, config.domains).join(fleet, stack)
    return fleet


def _openai(name: str, settings: OpenAISettings) -> Backend:
    return OpenAIBackend(
        name,
        base_url=settings.base_url,
        api_key=settings.api_key,
        models=settings.models,
        connect_s=settings.connect_s,
        silence_s=settings.silence_s,
        answer_s=settings.answer_s,
        count_usage=settings.count_usage,
        max_connections=settings.max_connections,
    )


@asynccontextmanager
async def _azure(name: str, settings: AzureSettings) -> AsyncIterator[AzureBackend]:
    """The backend, and beside it what renews its tokens, if it has any."""
    if settings.entra is None:
        yield AzureBackend(name, settings)
        return
    tokens = entra.build(name, settings.entra)
    async with aclosing(tokens), beside(tokens.run(), f"tokens of {name}"):
        yield AzureBackend(name, settings, tokens)


async def _follow(
    name: str,
    settings: LocalSettings,
    domains: Mapping[str, Domain],
    trusted: Trusted | None,
    stack: AsyncExitStack,
) -> None:
    """Where there is a registry: the directory as it says now, and from now on."""
    if settings.registry is None:
        return
    named = [domain.canary for domain in domains.values() if domain.canary and name in domain.plan]
    follower = await asyncio.to_thread(
        Follower,
        f"$.backends.{name}",
        settings.registry,
        settings.adapters,
        domains,
        [canary.adapter for canary in named],
        trusted,
    )
    await follower.look()
    await stack.enter_async_context(beside(follower.run(), f"registry of {name}"))


class _Local:
    """The parts of an embedded backend. Its packages are imported here, as they are an extra."""

    def __init__(
        self, name: str, settings: EmbeddedSettings, domains: Mapping[str, Domain]
    ) -> None:
        try:
            from proxy.backends.embedded.backend import EmbeddedBackend
            from proxy.protocol.base_model import BaseModel, BaseModelError
        except ImportError as error:
            raise missing(f"$.backends.{name}", "embedded", error) from error
        try:
            self._model = BaseModel.find(settings.base_model)
        except BaseModelError as error:
            raise BadAdapter(f"$.backends.{name}.base_model: {error}") from error
        self._unreadable = BaseModelError
        self._kind = EmbeddedBackend
        self._name = name
        self._settings = settings
        self._domains = domains
        self._trusted = trusted(f"$.backends.{name}", settings)

    async def join(self, fleet: Fleet, stack: AsyncExitStack) -> None:
        """Start it, with its champions of now; closed with `stack`."""
        await _follow(self._name, self._settings, self._domains, self._trusted, stack)
        seen = await asyncio.to_thread(stamp, self._settings.adapters)
        champions = await asyncio.to_thread(self.champions)
        backend = await stack.enter_async_context(self.backend(champions))
        rollout = LocalRollout(backend, champions.adapters if self._settings.preload else ())
        fleet.backends[self._name] = backend
        fleet.champions[self._name] = champions
        fleet.sources[self._name] = Source(self._settings.adapters, self.champions, rollout, seen)

    def champions(self, known: Mapping[str, Adapter] | None = None) -> Champions:
        """The bundles that answer for the domains; blocks while it hashes those not `known`."""
        try:
            base = Base(
                self._model.id,
                self._model.sha256,
                self._model.tokenizer_sha256,
                self._model.encode,
            )
        except self._unreadable as error:
            raise BadAdapter(f"$.backends.{self._name}: {error}") from error
        return Champions.read(self._settings.adapters, base, self._domains, self._trusted, known)

    @asynccontextmanager
    async def backend(self, champions: Champions) -> AsyncIterator[EmbeddedBackend]:
        """The engine, with what is to be preloaded in memory."""
        backend = self._kind(self._name, self._settings, self._model, champions.adapters)
        async with aclosing(backend):
            await backend.start()
            yield backend


class _Engine:
    """The parts of a backend whose engine runs elsewhere. Its packages are an extra, too."""

    def __init__(
        self, name: str, settings: TgiSettings | VllmSettings, domains: Mapping[str, Domain]
    ) -> None:
        try:
            from proxy.backends import connect
            from proxy.backends.vocabulary import VocabularyError

            self._connect = connect
            self._vocabulary = connect.vocabulary(settings)
        except ImportError as error:
            raise missing(f"$.backends.{name}", "engines", error) from error
        except VocabularyError as error:
            raise BadAdapter(f"$.backends.{name}.tokenizer: {error}") from error
        self._name = name
        self._settings = settings
        self._domains = domains
        self._trusted = trusted(f"$.backends.{name}", settings)

    async def join(self, fleet: Fleet, stack: AsyncExitStack) -> None:
        """Start it, with its champions of now; closed with `stack`."""
        settings = self._settings
        await _follow(self._name, settings, self._domains, self._trusted, stack)
        champions = await asyncio.to_thread(self.champions)
        backend, pool = await stack.enter_async_context(self.running(champions))
        there = settings.adapters_there or str(settings.adapters.absolute())
        rollout = PoolRollout(pool, restarter(settings.pool.restart), champions.adapters, there)
        fleet.backends[self._name] = backend
        fleet.pools[self._name] = pool
        fleet.champions[self._name] = champions
        fleet.sources[self._name] = Source(settings.adapters, self.champions, rollout)

    def champions(self, known: Mapping[str, Adapter] | None = None) -> Champions:
        """The bundles that answer for the domains; blocks while it hashes those not `known`."""
        base = Base(
            self._settings.base_model, None, self._vocabulary.sha256, self._vocabulary.encode
        )
        return Champions.read(self._settings.adapters, base, self._domains, self._trusted, known)

    @asynccontextmanager
    async def running(self, champions: Champions) -> AsyncIterator[tuple[Backend, Replicas]]:
        """The backend and its servers, each of which has been asked once, if it answers at all."""
        for_tls = any(url.startswith("https://") for url in self._settings.replicas)
        session = http.Session(self._settings.connect_s, self._settings.api_key, for_tls=for_tls)
        pool = self._connect.pool(self._name, self._settings, self._vocabulary, session)
        backend = self._connect.backend(self._name, self._settings, self._vocabulary, pool, session)
        pool.want(champions.adapters)
        async with aclosing(backend), beside(pool.run(), f"replicas of {self._name}"):
            await pool.settled(_SETTLING)
            yield backend, pool
