"""Makes every object and starts every task; the only file that knows them all."""

from __future__ import annotations

import asyncio
import time
from collections.abc import AsyncIterator, Callable, Coroutine, Iterable, Iterator, Mapping
from contextlib import AsyncExitStack, aclosing, asynccontextmanager
from dataclasses import dataclass, field
from functools import partial
from typing import TYPE_CHECKING, NamedTuple

import structlog
from starlette.routing import Route, Router
from starlette.types import ASGIApp

from proxy.auth import Authenticator
from proxy.backends import entra, http, litellm
from proxy.backends.azure import AzureBackend
from proxy.backends.base import Backend
from proxy.backends.openai import OpenAIBackend
from proxy.backends.replicas import Replicas
from proxy.backends.settings import (
    AzureSettings,
    EmbeddedSettings,
    LiteLLMSettings,
    OpenAISettings,
    TgiSettings,
    VllmSettings,
)
from proxy.cache import Cache
from proxy.catalog import BadAdapter, Base, Catalog, Champions
from proxy.config import Config
from proxy.consent import Consent
from proxy.endpoints.azure import AzurePaths
from proxy.endpoints.feedback import GiveFeedback
from proxy.endpoints.health import Health, Ready
from proxy.endpoints.json_requests import Asked, JsonRequests
from proxy.endpoints.models import Models
from proxy.endpoints.passthrough import PassThrough
from proxy.errors import MissingExtra
from proxy.gateway import Gateway
from proxy.hedge import Hedges
from proxy.keeping import Keeping
from proxy.limits import Limits
from proxy.middleware import ErrorAnswers, RequestLog
from proxy.outcomes import OutcomeRules
from proxy.passage import Passage
from proxy.protocol.prices import PRICES
from proxy.record.keys import keyring
from proxy.record.settings import RecordSettings
from proxy.recorder import Recorder
from proxy.redact import Redactor, own_key
from proxy.responding import Responder
from proxy.restart import restarter
from proxy.rollout import LocalRollout, PoolRollout, Rollouts, Source, stamp
from proxy.routing import RouteTable
from proxy.sinks.segments import SegmentSink

if TYPE_CHECKING:
    from proxy.backends.embedded.backend import EmbeddedBackend

log = structlog.get_logger(__name__)

_MIB = 1024 * 1024
_SETTLING = 30.0
"""Seconds that the start waits for engines elsewhere to be well and prove their adapters. Chosen:
what takes longer joins when it is there; until then the plan's next backend answers."""


class Draining:
    """Whether the server is on its way out; told to load balancers by /ready."""

    def __init__(self) -> None:
        self._has_begun = False

    def begin(self) -> None:
        """No new requests, please."""
        self._has_begun = True

    def __call__(self) -> bool:
        return self._has_begun


class Proxy(NamedTuple):
    """A proxy that is ready to serve."""

    app: ASGIApp
    draining: Draining


@asynccontextmanager
async def running(config: Config) -> AsyncIterator[Proxy]:
    """Everything, up and running; leaving writes what is left to record, then closes the engines.

    Raises CannotStart when something that routes.yaml asks for is missing or broken. A background
    task that dies cancels the body and takes the process with it, so that it is started anew.
    """
    async with AsyncExitStack() as stack:
        fleet = await _fleet(config, stack)
        catalog = Catalog(fleet.backends, fleet.champions)
        recorder = await stack.enter_async_context(_recorder(config))
        rollouts = Rollouts(catalog, fleet.sources)
        await stack.enter_async_context(_beside(rollouts.run(), "rollouts"))
        yield assemble(config, catalog, recorder, lambda: _details(fleet, rollouts))


def assemble(
    config: Config,
    catalog: Catalog,
    recorder: Recorder | None,
    details: Callable[[], Mapping[str, object]] = dict,
) -> Proxy:
    """The proxy around backends that are there already; /ready tells `details` besides."""
    draining = Draining()
    ready = Ready(catalog.backends, config.domains, draining, details, recorder)
    return Proxy(_app(config, _gateway(config, catalog, recorder), ready), draining)


def _details(fleet: _Fleet, rollouts: Rollouts) -> dict[str, object]:
    replicas = {name: pool.status() for name, pool in fleet.pools.items()}
    return {"replicas": replicas, "rollouts": rollouts.told}


def _app(config: Config, gateway: Gateway, ready: Ready) -> ASGIApp:
    models = Models(config.models, gateway.auth, int(time.time()))
    passage = Passage(gateway)
    router = Router(
        routes=[
            *_posted(config, gateway, passage),
            Route("/v1/feedback", GiveFeedback(gateway.auth, gateway.recorder), methods=["POST"]),
            Route("/v1/models", models, methods=["GET"]),
            Route("/v1/models/{id:path}", models, methods=["GET"]),
            Route("/health", Health(), methods=["GET"]),
            Route("/ready", ready, methods=["GET"]),
            Route("/v1/{path:path}", PassThrough(passage, gateway.auth, config.limits)),
        ],
        redirect_slashes=False,
    )
    return RequestLog(ErrorAnswers(AzurePaths(router)), config.response_headers)


def _posted(config: Config, gateway: Gateway, passage: Passage) -> Iterator[Route]:
    """The endpoints that read a JSON body."""
    asked: dict[str, Asked] = {
        "/chat/completions": gateway.answer,
        "/completions": partial(passage.named, path="/completions"),
        "/embeddings": partial(passage.named, path="/embeddings"),
        "/responses": Responder(gateway, passage).answer,
    }
    max_body = int(config.limits.max_body_mib * _MIB)
    for path, method in asked.items():
        endpoint = JsonRequests(method, gateway.auth, max_body)
        yield Route(f"/v1{path}", endpoint, methods=["POST"])


def _gateway(config: Config, catalog: Catalog, recorder: Recorder | None) -> Gateway:
    return Gateway(
        auth=Authenticator(config.auth.keys),
        routes=RouteTable(config.domains, config.defaults, config.models),
        limits=Limits(config.limits.max_in_flight),
        catalog=catalog,
        recorder=recorder,
        consent=_consent(config),
        deadline_s=config.limits.deadline_s,
        longest_s=config.limits.longest_s,
        hedges=Hedges(),
        cache=Cache(config.domains),
    )


# ---------------------------------------------------------------- backends


@dataclass(frozen=True, slots=True)
class _Fleet:
    """The backends, by name, and what belongs to those that have adapters."""

    backends: dict[str, Backend] = field(default_factory=dict)
    champions: dict[str, Champions] = field(default_factory=dict)
    sources: dict[str, Source] = field(default_factory=dict)
    pools: dict[str, Replicas] = field(default_factory=dict)


async def _fleet(config: Config, stack: AsyncExitStack) -> _Fleet:
    """All backends, running; closed again with `stack`."""
    fleet = _Fleet()
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
    async with aclosing(tokens), _beside(tokens.run(), f"tokens of {name}"):
        yield AzureBackend(name, settings, tokens)


class _Local:
    """The parts of an embedded backend. Its packages are imported here, as they are an extra."""

    def __init__(self, name: str, settings: EmbeddedSettings, domains: Iterable[str]) -> None:
        try:
            from proxy.backends.embedded.backend import EmbeddedBackend
            from proxy.protocol.base_model import BaseModel, BaseModelError
        except ImportError as error:
            raise _missing(name, "embedded", error) from error
        try:
            self._model = BaseModel.find(settings.base_model)
        except BaseModelError as error:
            raise BadAdapter(f"$.backends.{name}.base_model: {error}") from error
        self._unreadable = BaseModelError
        self._kind = EmbeddedBackend
        self._name = name
        self._settings = settings
        self._domains = domains

    async def join(self, fleet: _Fleet, stack: AsyncExitStack) -> None:
        """Start it, with its champions of now; closed with `stack`."""
        seen = await asyncio.to_thread(stamp, self._settings.adapters)
        champions = await asyncio.to_thread(self.champions)
        backend = await stack.enter_async_context(self.backend(champions))
        rollout = LocalRollout(backend)
        fleet.backends[self._name] = backend
        fleet.champions[self._name] = champions
        fleet.sources[self._name] = Source(self._settings.adapters, self.champions, rollout, seen)

    def champions(self) -> Champions:
        """The bundles that answer for the domains; blocks while it hashes files."""
        try:
            base = Base(
                self._model.id,
                self._model.sha256,
                self._model.tokenizer_sha256,
                self._model.encode,
            )
        except self._unreadable as error:
            raise BadAdapter(f"$.backends.{self._name}: {error}") from error
        return Champions.read(self._settings.adapters, base, self._domains)

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
        self, name: str, settings: TgiSettings | VllmSettings, domains: Iterable[str]
    ) -> None:
        try:
            from proxy.backends import connect
            from proxy.backends.vocabulary import VocabularyError

            self._connect = connect
            self._vocabulary = connect.vocabulary(settings)
        except ImportError as error:
            raise _missing(name, "engines", error) from error
        except VocabularyError as error:
            raise BadAdapter(f"$.backends.{name}.tokenizer: {error}") from error
        self._name = name
        self._settings = settings
        self._domains = domains

    async def join(self, fleet: _Fleet, stack: AsyncExitStack) -> None:
        """Start it, with its champions of now; closed with `stack`."""
        settings = self._settings
        champions = await asyncio.to_thread(self.champions)
        backend, pool = await stack.enter_async_context(self.running(champions))
        there = settings.adapters_there or str(settings.adapters.absolute())
        rollout = PoolRollout(pool, restarter(settings.pool.restart), champions.adapters, there)
        fleet.backends[self._name] = backend
        fleet.pools[self._name] = pool
        fleet.champions[self._name] = champions
        fleet.sources[self._name] = Source(settings.adapters, self.champions, rollout)

    def champions(self) -> Champions:
        """The bundles that answer for the domains; blocks while it hashes files."""
        base = Base(
            self._settings.base_model, None, self._vocabulary.sha256, self._vocabulary.encode
        )
        return Champions.read(self._settings.adapters, base, self._domains)

    @asynccontextmanager
    async def running(self, champions: Champions) -> AsyncIterator[tuple[Backend, Replicas]]:
        """The backend and its servers, each of which has been asked once, if it answers at all."""
        session = http.session(self._settings.connect_s, self._settings.api_key)
        pool = self._connect.pool(self._name, self._settings, self._vocabulary, session)
        backend = self._connect.backend(self._name, self._settings, self._vocabulary, pool, session)
        pool.want(champions.adapters)
        async with aclosing(backend), _beside(pool.run(), f"replicas of {self._name}"):
            await pool.settled(_SETTLING)
            yield backend, pool


def _missing(name: str, extra: str, error: ImportError) -> Exception:
    if (error.name or "").startswith("proxy"):
        return error
    return MissingExtra(
        f"$.backends.{name}: its kind needs the package {error.name!r}, which is not installed;"
        f" run: pip install 'headrace[{extra}]'"
    )


# ---------------------------------------------------------------- background


@asynccontextmanager
async def _recorder(config: Config) -> AsyncIterator[Recorder | None]:
    settings = config.record
    if settings is None:
        yield None
        return
    recorder = Recorder(
        SegmentSink(
            settings.directory,
            int(settings.segment_mib * _MIB),
            settings.segment_s,
            keyring(settings),
        ),
        max_waiting=settings.max_waiting,
        sync_s=settings.sync_s,
        keeping=Keeping(
            redactor=redactor(settings, config),
            prices={**PRICES, **settings.prices},
            rules=OutcomeRules(settings.tool_errors),
        ),
        is_durable=settings.durable == "before_reply",
    )
    async with _beside(recorder.run(config.limits.grace_s), "recorder"):
        yield recorder


def redactor(settings: RecordSettings, config: Config) -> Redactor:
    """Takes out what routes.yaml says, and each key that routes.yaml holds."""
    given = settings.redact.key
    secrets = [key.key for key in config.auth.keys]
    secrets += [
        backend.api_key
        for backend in config.backends.values()
        if isinstance(backend, OpenAISettings) and backend.api_key
    ]
    key = given.encode() if given else partial(own_key, settings.directory)
    return Redactor(key, personal=settings.redact.personal, known_secrets=secrets)


def _consent(config: Config) -> Consent:
    record = config.record or RecordSettings()
    tenants = {name: tenant.level for name, tenant in record.tenants.items()}
    return Consent(record.level, config.domains, tenants)


@asynccontextmanager
async def _beside(work: Coroutine[None, None, None], name: str) -> AsyncIterator[None]:
    """Run a task beside the body and end it with the body; if it dies before, so does the body."""
    async with asyncio.TaskGroup() as tasks:
        task = tasks.create_task(_logged(work, name), name=name)
        yield
        task.cancel()


async def _logged(work: Coroutine[None, None, None], name: str) -> None:
    try:
        await work
    except Exception:
        log.exception("background_task_died", task=name)
        raise
