"""routes.yaml, typed: what is served, by whom, and how much.

Every key is known here; an unknown one is an error that names its path. Secrets are references to
the environment (`${NAME}`). Relative paths start at the directory of the file.
"""

from __future__ import annotations

import difflib
import os
import time
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Annotated, Literal

import msgspec

from proxy.auth_settings import AuthSettings
from proxy.backends.settings import (
    AzureSettings,
    BackendSettings,
    CloudSettings,
    EmbeddedSettings,
)
from proxy.comparison import Shadow
from proxy.dashboard_settings import DashboardSettings
from proxy.domains import PREDICT, Defaults, Domain, clashes
from proxy.errors import BadConfig
from proxy.limits import LimitSettings
from proxy.metrics import MetricsSettings
from proxy.positions import position
from proxy.protocol.hardware import CostSettings
from proxy.protocol.places import place
from proxy.protocol.prices import PRICES, price_at
from proxy.record.settings import RecordSettings
from proxy.settings_errors import told
from proxy.tracing_settings import TracingSettings
from proxy.yaml_text import plain, with_environment

_ROUNDED = 1e-6
"""How far shares may be from 1: thirds, written with six digits."""


class Config(msgspec.Struct, frozen=True, forbid_unknown_fields=True, kw_only=True):
    """All of routes.yaml."""

    version: Literal[1]
    """Version of this form."""
    models: Annotated[list[str], msgspec.Meta(min_length=1)]
    """Model names that clients may ask for; others are answered with 404 model_not_found."""
    backends: Annotated[dict[str, BackendSettings], msgspec.Meta(min_length=1)]
    """Who can answer, by name."""
    domains: Annotated[dict[str, Domain], msgspec.Meta(min_length=1)]
    """Kinds of requests, by name."""
    defaults: Defaults
    """Domains of requests that no tool places."""
    record: RecordSettings | None = None
    """Where exchanges are kept. Default none: nothing is kept."""
    auth: AuthSettings = AuthSettings()
    """Who may call. Default: whoever reaches the loopback address."""
    response_headers: bool = True
    """Whether responses say in `x-headrace-…` headers who answered and why. Default true."""
    metrics: MetricsSettings = MetricsSettings()
    """Who may read /metrics."""
    dashboard: DashboardSettings = DashboardSettings()
    """The pages for operators."""
    tracing: TracingSettings | None = None
    """Where spans of requests and attempts are sent. Default none: nothing is traced."""
    limits: LimitSettings = LimitSettings()
    """What the proxy takes on."""
    costs: CostSettings | None = None
    """What own hardware costs, for `headrace report costs`. Default none: it is not known."""


def load(path: Path) -> Config:
    """The settings in `path`; raises BadConfig that names the file, the place and the remedy."""
    text = ""
    try:
        text = path.read_text()
        if not text.strip():
            raise BadConfig("the file is empty; the routes.yaml of Headrace is one to begin with")
        return parse(text, path.parent, os.environ)
    except OSError as error:
        raise BadConfig(f"{path}: {error.strerror}; name another with --config") from error
    except UnicodeDecodeError as error:
        raise BadConfig(f"{path}: not UTF-8 text ({error.reason} at byte {error.start})") from error
    except BadConfig as error:
        raise BadConfig(f"{_place(path, text, str(error))}: {error}") from error


def _place(path: Path, text: str, complaint: str) -> str:
    """The file with line and column, as compilers tell them and editors follow them."""
    at = position(text, complaint)
    return f"{path}:{at.line}:{at.column}" if at else str(path)


def parse(text: str, directory: Path, environment: Mapping[str, str]) -> Config:
    """The settings in a YAML text whose relative paths start at `directory`."""
    document = with_environment(plain(text), environment)
    config = _typed(document, directory)
    for complaint in _contradictions(config):
        raise BadConfig(complaint)
    return config


# ---------------------------------------------------------------- plain values → Config


def _typed(document: object, directory: Path) -> Config:
    try:
        return _anchored(_converted(document), directory)
    except msgspec.ValidationError as error:
        raise BadConfig(told(str(error), document, Config, _converted)) from None


def _converted(document: object) -> Config:
    return msgspec.convert(document, Config, dec_hook=lambda kind, value: kind(value))


def _anchored(config: Config, directory: Path) -> Config:
    """The settings with each relative path, given or default, starting at `directory`."""
    backends = {name: _anchored_backend(b, directory) for name, b in config.backends.items()}
    record = config.record and _anchored_record(config.record, directory)
    auth = _anchored_auth(config.auth, directory)
    defaults = _anchored_defaults(config.defaults, directory)
    dashboard = _anchored_dashboard(config.dashboard, directory)
    return msgspec.structs.replace(
        config,
        backends=backends,
        record=record,
        auth=auth,
        defaults=defaults,
        dashboard=dashboard,
    )


def _anchored_auth(settings: AuthSettings, directory: Path) -> AuthSettings:
    file = settings.file and place(settings.file, directory)
    return msgspec.structs.replace(settings, file=file)


def _anchored_dashboard(settings: DashboardSettings, directory: Path) -> DashboardSettings:
    runs = settings.runs and place(settings.runs, directory)
    return msgspec.structs.replace(settings, runs=runs)


def _anchored_defaults(defaults: Defaults, directory: Path) -> Defaults:
    if defaults.router is None:
        return defaults
    model = place(defaults.router.model, directory)
    router = msgspec.structs.replace(defaults.router, model=model)
    return msgspec.structs.replace(defaults, router=router)


def _anchored_record(settings: RecordSettings, directory: Path) -> RecordSettings:
    archive = settings.archive
    if archive is not None and "://" not in archive.url:
        url = str(place(archive.url, directory))
        archive = msgspec.structs.replace(archive, url=url)
    encryption = settings.encryption
    if encryption is not None:
        keys = {id: _anchored_key(key, directory) for id, key in encryption.keys.items()}
        encryption = msgspec.structs.replace(encryption, keys=keys)
    segments = place(settings.directory, directory)
    return msgspec.structs.replace(
        settings, directory=segments, archive=archive, encryption=encryption
    )


def _anchored_key(key: str, directory: Path) -> str:
    path = key.removeprefix("file:")
    return key if path == key else f"file:{place(path, directory)}"


def _anchored_backend(settings: BackendSettings, directory: Path) -> BackendSettings:
    if isinstance(settings, CloudSettings):
        return settings
    adapters = place(settings.adapters, directory)
    if isinstance(settings, EmbeddedSettings):
        model = settings.base_model
        if model.endswith(".gguf"):
            model = str(place(model, directory))
        return msgspec.structs.replace(settings, base_model=model, adapters=adapters)
    tokenizer = settings.tokenizer and place(settings.tokenizer, directory)
    return msgspec.structs.replace(settings, tokenizer=tokenizer, adapters=adapters)


# ---------------------------------------------------------------- contradictions


def _contradictions(config: Config) -> Iterator[str]:
    for name, domain in config.domains.items():
        yield from _bad_plan(f"$.domains.{name}.plan", domain.plan, config.backends)
        yield from _bad_comparisons(f"$.domains.{name}", domain, config)
    for field in ("tools", "chat"):
        default = getattr(config.defaults, field)
        if default not in config.domains:
            yield f"$.defaults.{field}: no domain {default!r}{_nearest(default, config.domains)}"
        elif config.domains[default].tenants:
            yield (
                f"$.defaults.{field}: {default!r} belongs to tenants, and this is everybody's;"
                " name a domain without `tenants`"
            )
    yield from _bad_mixed(config)
    for clash in clashes(config.domains):
        yield f"$.domains: {clash}"


def _bad_mixed(config: Config) -> Iterator[str]:
    mixed = config.defaults.mixed
    if mixed == PREDICT and config.defaults.router is None:
        yield "$.defaults.mixed: `predict` needs a model; name its file in `defaults.router.model`"
    elif mixed not in (None, PREDICT, *config.domains):
        yield f"$.defaults.mixed: no domain {mixed!r}{_nearest(str(mixed), config.domains)}"
    if PREDICT in config.domains:
        yield f"$.domains.{PREDICT}: the name stands for the router model; choose another"


def _bad_plan(path: str, plan: list[str], backends: Mapping[str, object]) -> Iterator[str]:
    if not plan:
        yield f"{path}: no backend would answer; name at least one of {', '.join(backends)}"
    for index, name in enumerate(plan):
        if name not in backends:
            yield f"{path}[{index}]: no backend {name!r}{_nearest(name, backends)}"
        if name in plan[:index]:
            yield f"{path}[{index}]: {name!r} is in the plan already"


def _bad_comparisons(path: str, domain: Domain, config: Config) -> Iterator[str]:
    if domain.split and domain.canary is not None:
        yield f"{path}.canary: one comparison at a time; take out `split` or `canary`"
    yield from _bad_split(f"{path}.split", domain)
    if domain.canary is not None:
        yield from _bad_canary(f"{path}.canary", domain, config)
    if domain.shadow is not None:
        yield from _bad_shadow(f"{path}.shadow", domain, domain.shadow, config)


def _bad_split(path: str, domain: Domain) -> Iterator[str]:
    for name in domain.split:
        if name not in domain.plan:
            yield f"{path}.{name}: not in the plan; add it there, so that it may also step in"
    total = sum(domain.split.values())
    if domain.split and abs(total - 1) > _ROUNDED:
        yield f"{path}: the shares come to {total:g}; they must come to 1"
    if len(domain.split) == 1:
        yield f"{path}: one side is no comparison; name another one, or take it out"


def _bad_canary(path: str, domain: Domain, config: Config) -> Iterator[str]:
    local = first_local(domain, config.backends)
    if local is None:
        yield f"{path}: no backend of the plan has adapters; add a local one"
    elif local != domain.plan[0]:
        yield (
            f"{path}: {domain.plan[0]!r} answers first and has no adapters; put {local!r} first in"
            " the plan"
        )


def _bad_shadow(path: str, domain: Domain, shadow: Shadow, config: Config) -> Iterator[str]:
    backend = config.backends.get(shadow.to)
    if backend is None:
        yield f"{path}.to: no backend {shadow.to!r}{_nearest(shadow.to, config.backends)}"
    elif shadow.to == domain.plan[0] and not domain.split:
        yield f"{path}.to: {shadow.to!r} answers already; name a backend that does not"
    if config.record is None:
        yield f"{path}: nothing is recorded; add a `record` section, or take `shadow` out"
    elif {config.record.level, domain.record or "full"} != {"full"}:
        yield f"{path}: only what is recorded in full is shadowed; set `record: full`"
    if shadow.budget_usd_per_day is not None and backend is not None:
        yield from _bad_budget(f"{path}.budget_usd_per_day", backend, config)


def _bad_budget(path: str, backend: BackendSettings, config: Config) -> Iterator[str]:
    if not isinstance(backend, CloudSettings):
        yield f"{path}: a local engine has no price by the token; take the budget out"
        return
    own = config.record.prices if config.record else {}
    names = {backend.models.get(model, model) for model in config.models}
    # An Azure deployment may have any name; its answers tell the model that has the price.
    is_told = isinstance(backend, AzureSettings)
    if not is_told and not any(price_at({**PRICES, **own}, n, time.time()) for n in names):
        yield (
            f"{path}: no price is known for {', '.join(sorted(names))}; add one under"
            " $.record.prices, or take the budget out"
        )


def first_local(domain: Domain, backends: Mapping[str, BackendSettings]) -> str | None:
    """The first backend of the domain's plan that has adapters."""
    known = (name for name in domain.plan if name in backends)
    return next((n for n in known if not isinstance(backends[n], CloudSettings)), None)


def _nearest(name: str, known: Mapping[str, object]) -> str:
    nearest = difflib.get_close_matches(name, known, n=1, cutoff=0.5)
    return f"; did you mean {nearest[0]!r}?" if nearest else f"; known are: {', '.join(known)}"
