"""Makes every object and starts every task; the only file that knows them all."""

from __future__ import annotations

import asyncio
import time
from collections.abc import AsyncIterator, Callable, Iterator, Mapping
from contextlib import AsyncExitStack, asynccontextmanager
from functools import partial
from typing import NamedTuple

from starlette.routing import Route, Router
from starlette.types import ASGIApp

from proxy import fleet as fleets
from proxy import prediction, tenancy
from proxy.auth import Authenticator
from proxy.backends.settings import (
    AzureSettings,
    EmbeddedSettings,
    OpenAISettings,
)
from proxy.beside import beside, missing
from proxy.budget import Budget
from proxy.cache import Cache
from proxy.catalog import Catalog
from proxy.config import Config, first_local
from proxy.consent import Consent
from proxy.counting import Counting
from proxy.dashboard.site import Dashboard
from proxy.domains import Domain
from proxy.endpoints.admin import Explain, Reload
from proxy.endpoints.azure import AzurePaths
from proxy.endpoints.feedback import GiveFeedback
from proxy.endpoints.health import Health, Ready, Startup
from proxy.endpoints.json_requests import Asked, JsonRequests
from proxy.endpoints.metrics import MetricsPage
from proxy.endpoints.models import Models
from proxy.endpoints.passthrough import PassThrough
from proxy.endpoints.shortcuts import Shortcuts
from proxy.fleet import Fleet
from proxy.gateway import Gateway
from proxy.gauges import Gauges, Pool
from proxy.hedge import Hedges
from proxy.keeping import Keeping
from proxy.limits import Limits
from proxy.metrics import Metrics
from proxy.middleware import Requests
from proxy.outcomes import OutcomeRules
from proxy.passage import Passage
from proxy.protocol.prices import PRICES
from proxy.protocol.redact import Redactor, own_key
from proxy.quotas.memory import MemoryLedger
from proxy.record.keys import keyring
from proxy.record.settings import RecordSettings
from proxy.recorder import Recorder
from proxy.reload import Live
from proxy.responding import Responder
from proxy.rollout import Place, Rollouts
from proxy.routing import Routes
from proxy.shadow import Shadows
from proxy.siblings import Siblings
from proxy.sinks.segments import SegmentSink

_MIB = 1024 * 1024


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
    metrics: Metrics
    dashboard: Dashboard | None = None

    def begin_draining(self) -> None:
        """No new requests, please; and no new champions."""
        self.draining.begin()


@asynccontextmanager
async def running(
    config: Config,
    used: MemoryLedger | None = None,
    live: Live | None = None,
    metrics: Metrics | None = None,
    siblings: Siblings | None = None,
) -> AsyncIterator[Proxy]:
    """Everything, up and running; leaving writes what is left to record, then closes the engines.

    `used`: what callers have used so far, `metrics`: what was counted; `live`: what starts a
    successor when settings change; `siblings`: the other workers, if there are several.

    Raises CannotStart when something that routes.yaml asks for is missing or broken. A background
    task that dies cancels the body and takes the process with it, so that it is started anew.
    """
    async with AsyncExitStack() as stack:
        fleet = await fleets.start(config, stack)
        catalog = Catalog(fleet.backends, fleet.champions)
        auth = await stack.enter_async_context(tenancy.authenticator(config.auth))
        recorder = await stack.enter_async_context(_recorder(config))
        limits = await stack.enter_async_context(tenancy.limits(config, used))
        rollouts = Rollouts(catalog, fleet.sources, places(config))
        await stack.enter_async_context(beside(rollouts.run(), "rollouts"))
        shadows = shadowing(config, catalog, recorder)
        if shadows is not None:
            await stack.enter_async_context(beside(shadows.run(), "shadows"))
        details = partial(_details, fleet, rollouts, live)
        proxy = assemble(
            config,
            catalog,
            recorder,
            details,
            shadows,
            fleet.pools,
            auth=auth,
            limits=limits,
            live=live,
            metrics=metrics,
            siblings=siblings,
        )
        rollouts.is_over = proxy.draining
        traced = await stack.enter_async_context(_traced(config, proxy.app))
        proxy = proxy._replace(app=traced)
        await stack.enter_async_context(beside(proxy.metrics.run(), "metrics"))
        if proxy.dashboard is not None:
            await stack.enter_async_context(beside(proxy.dashboard.run(), "dashboard"))
        yield proxy


def assemble(
    config: Config,
    catalog: Catalog,
    recorder: Recorder | None,
    details: Callable[[], Mapping[str, object]] = dict,
    shadows: Shadows | None = None,
    pools: Mapping[str, Pool] | None = None,
    *,
    auth: Authenticator | None = None,
    limits: Limits | None = None,
    live: Live | None = None,
    metrics: Metrics | None = None,
    siblings: Siblings | None = None,
) -> Proxy:
    """The proxy around backends that are there already; /ready tells `details` besides.

    Its `metrics` are to be run beside it, or count when they are read. `auth` defaults to the keys
    of the settings, `limits` to the number of requests in flight.
    """
    auth = auth or tenancy.with_keys(config.auth)
    limits = limits or Limits(config.limits.max_in_flight)
    draining = Draining()
    ready = Ready(catalog.backends, config.domains, draining, details, recorder, shadows, auth)
    metrics = metrics or Metrics({})
    metrics.know(_providers(config))
    gateway = _gateway(config, catalog, recorder, shadows, auth, limits, metrics)
    gauges = Gauges(
        catalog=catalog,
        domains=config.domains,
        limits=limits,
        recorder=recorder,
        pools=pools or {},
        shadows=shadows,
    )
    page = MetricsPage(metrics, gauges, auth, is_public=config.metrics.public, siblings=siblings)
    dashboard = _dashboard(config, gateway, page)
    app = _app(config, gateway, ready, page, dashboard, live)
    return Proxy(app, draining, metrics, dashboard)


def _dashboard(config: Config, gateway: Gateway, page: MetricsPage) -> Dashboard | None:
    if not config.dashboard.enabled:
        return None
    return Dashboard(config, gateway.catalog, gateway.auth, gateway.recorder, page.collect)


def shadowing(config: Config, catalog: Catalog, recorder: Recorder | None) -> Shadows | None:
    """What shadows the domains that routes.yaml or a candidate has shadowed; None where none may
    be, or nothing is recorded."""
    settings, domains = config.record, config.domains
    tried = {name: place.backend for name, place in places(config).items() if not place.obstacle}
    is_wanted = bool(tried) or any(domain.shadow for domain in domains.values())
    if recorder is None or settings is None or not is_wanted:
        return None
    budget = Budget(settings.directory)
    return Shadows(domains, catalog, recorder, _counting(settings), budget, places=tried)


def places(config: Config) -> dict[str, Place]:
    """Domain → where its canary can answer."""
    found = {name: first_local(one, config.backends) for name, one in config.domains.items()}
    return {
        name: Place(local, config.domains[name].canary, _obstacle(config.domains[name], local))
        for name, local in found.items()
        if local is not None
    }


def _obstacle(domain: Domain, local: str) -> str:
    """Why a candidate would get no share of a domain; empty where it would."""
    if domain.split:
        return "routes.yaml splits the domain; one comparison at a time: take out `split`"
    if domain.plan[0] != local:
        return f"{domain.plan[0]!r} answers first; put {local!r} first in the domain's plan"
    return ""


def _details(fleet: Fleet, rollouts: Rollouts, live: Live | None) -> dict[str, object]:
    replicas = {name: pool.status() for name, pool in fleet.pools.items()}
    told = {
        "replicas": replicas,
        "rollouts": rollouts.told,
        "candidates": rollouts.candidates,
    }
    return told if live is None else told | {"settings": live.told}


def _app(
    config: Config,
    gateway: Gateway,
    ready: Ready,
    page: MetricsPage,
    dashboard: Dashboard | None,
    live: Live | None,
) -> ASGIApp:
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
            Route("/startup", Startup(ready), methods=["GET"]),
            *_for_operators(config, gateway, dashboard, live),
            Route("/metrics", page, methods=["GET"]),
            Route("/v1/{path:path}", PassThrough(passage, gateway.auth, config.limits)),
        ],
        redirect_slashes=False,
    )
    app = AzurePaths(Shortcuts(router))
    return Requests(app, config.response_headers, gateway.metrics.put)


@asynccontextmanager
async def _traced(config: Config, app: ASGIApp) -> AsyncIterator[ASGIApp]:
    """The app, each of whose requests is traced where the settings say so."""
    if config.tracing is None:
        yield app
        return
    try:
        from proxy.tracing import Tracing
    except ImportError as error:
        raise missing("$.tracing", "tracing", error) from error
    tracing = Tracing(config.tracing)
    try:
        yield tracing.around(app)
    finally:
        await asyncio.to_thread(tracing.close)


def _for_operators(
    config: Config, gateway: Gateway, dashboard: Dashboard | None, live: Live | None
) -> Iterator[Route]:
    reload = Reload(gateway.auth, None if live is None else live.reload_everywhere)
    max_body = int(config.limits.max_body_mib * _MIB)
    explain = Explain(gateway.auth, gateway.routes, gateway.catalog, max_body)
    yield Route("/admin/reload", reload, methods=["POST"])
    yield Route("/admin/explain", explain, methods=["POST"])
    if dashboard is not None:
        yield Route("/dashboard", dashboard, methods=["GET"])
        yield Route("/dashboard/{path:path}", dashboard, methods=["GET", "POST"])


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


def _gateway(
    config: Config,
    catalog: Catalog,
    recorder: Recorder | None,
    shadows: Shadows | None,
    auth: Authenticator,
    limits: Limits,
    metrics: Metrics,
) -> Gateway:
    return Gateway(
        auth=auth,
        routes=Routes(config.domains, config.defaults, config.models, _predictor(config)),
        limits=limits,
        catalog=catalog,
        recorder=recorder,
        metrics=metrics,
        consent=_consent(config),
        deadline_s=config.limits.deadline_s,
        longest_s=config.limits.longest_s,
        hedges=Hedges(),
        cache=Cache(config.domains),
        shadows=shadows,
    )


def _predictor(config: Config) -> prediction.Predictor | None:
    router = config.defaults.router
    return None if router is None else prediction.build(router)


def _providers(config: Config) -> dict[str, str]:
    """Backend → `gen_ai.provider.name`; what runs here, or speaks many tongues, has none of its
    own."""
    names: dict[type, str] = {OpenAISettings: "openai", AzureSettings: "azure.ai.openai"}
    return {name: names.get(type(one), "headrace") for name, one in config.backends.items()}


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
            counting=_counting(settings),
            rules=OutcomeRules(settings.tool_errors),
        ),
        is_durable=settings.durable == "before_reply",
    )
    async with beside(recorder.run(config.limits.grace_s), "recorder"):
        yield recorder


def _counting(settings: RecordSettings) -> Counting:
    return Counting({**PRICES, **settings.prices})


def redactor(settings: RecordSettings, config: Config) -> Redactor:
    """Takes out what routes.yaml says, and each key that routes.yaml holds."""
    given = settings.redact.key
    secrets = [key.key for key in config.auth.keys if key.key is not None]
    for backend in config.backends.values():
        if not isinstance(backend, EmbeddedSettings) and backend.api_key:
            secrets.append(backend.api_key)
        if isinstance(backend, AzureSettings) and backend.entra and backend.entra.client_secret:
            secrets.append(backend.entra.client_secret)
    key = given.encode() if given else partial(own_key, settings.directory)
    return Redactor(key, personal=settings.redact.personal, known_secrets=secrets)


def _consent(config: Config) -> Consent:
    record = config.record or RecordSettings()
    tenants = {name: tenant.level for name, tenant in record.tenants.items()}
    return Consent(record.level, config.domains, tenants)
