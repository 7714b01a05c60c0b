"""routes.yaml, typed: what is served, by whom, and how much.

Every key is known here; an unknown one is an error that names its path. Secrets are references to
the environment (`${NAME}`). Relative paths start at the directory of the file.
"""

from __future__ import annotations

import difflib
import os
import re
import time
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Annotated, Any, Literal

import msgspec
import yaml
from msgspec import inspect

from proxy.auth_settings import AuthSettings
from proxy.backends.settings import (
    KINDS,
    AzureSettings,
    BackendSettings,
    CloudSettings,
    EmbeddedSettings,
)
from proxy.comparison import Shadow
from proxy.dashboard_settings import DashboardSettings
from proxy.errors import BadConfig
from proxy.limits import LimitSettings
from proxy.metrics import MetricsSettings
from proxy.positions import position
from proxy.protocol.hardware import CostSettings
from proxy.protocol.prices import PRICES, price_at
from proxy.record.settings import RecordSettings
from proxy.routing import PREDICT, Defaults, Domain, clashes
from proxy.tracing_settings import TracingSettings

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
    document = _with_environment(_plain(text), environment, "$")
    config = _typed(document, directory)
    for complaint in _contradictions(config):
        raise BadConfig(complaint)
    return config


# ---------------------------------------------------------------- text → plain values


class _UniqueKeys(yaml.SafeLoader):
    """Safe loader for which a key that occurs twice is an error: the second would win silently."""


def _mapping(loader: _UniqueKeys, node: yaml.MappingNode) -> dict[Any, Any]:
    seen: set[str] = set()
    for key, _ in node.value:
        mark = key.start_mark
        place = f"line {mark.line + 1}, column {mark.column + 1}"
        if not isinstance(key, yaml.ScalarNode):
            raise BadConfig(f"{place}: a key must be a text, not a list or a mapping")
        if key.value in seen:
            raise BadConfig(f"{place}: the key {key.value!r} occurs twice; give it once")
        seen.add(key.value)
    loader.flatten_mapping(node)
    return loader.construct_mapping(node, deep=True)


# As in YAML 1.2: the version of an API (`2024-10-21`) is a text and not a day, `verify: off` is no
# `false`.
_UniqueKeys.yaml_implicit_resolvers = {
    first: [
        (tag, pattern)
        for tag, pattern in resolvers
        if not tag.endswith((":timestamp", ":bool")) or (tag.endswith(":bool") and first in "tTfF")
    ]
    for first, resolvers in yaml.SafeLoader.yaml_implicit_resolvers.items()
}
_UniqueKeys.add_constructor(yaml.resolver.BaseResolver.DEFAULT_MAPPING_TAG, _mapping)


def _plain(text: str) -> object:
    try:
        return yaml.load(text, _UniqueKeys)  # noqa: S506  # a SafeLoader
    except yaml.MarkedYAMLError as error:
        mark = error.problem_mark
        place = f"line {mark.line + 1}, column {mark.column + 1}: " if mark else ""
        hint = '; inside { } write "${NAME}" with quotes' if "${" in _line(text, mark) else ""
        raise BadConfig(f"{place}{error.problem}{hint}") from None
    except yaml.YAMLError as error:
        raise BadConfig(f"not YAML: {error}") from None


def _line(text: str, mark: yaml.Mark | None) -> str:
    return text.splitlines()[mark.line] if mark and mark.line < len(text.splitlines()) else ""


_REFERENCE = re.compile(r"\$\{([A-Za-z_][A-Za-z0-9_]*)\}")


def _with_environment(value: object, environment: Mapping[str, str], path: str) -> object:
    match value:
        case dict():
            return {
                key: _with_environment(item, environment, f"{path}.{key}")
                for key, item in value.items()
            }
        case list():
            return [
                _with_environment(item, environment, f"{path}[{index}]")
                for index, item in enumerate(value)
            ]
        case str():
            return _REFERENCE.sub(lambda found: _variable(found[1], environment, path), value)
        case _:
            return value


def _variable(name: str, environment: Mapping[str, str], path: str) -> str:
    if not environment.get(name):
        raise BadConfig(f"{path}: the environment variable {name} is not set; export it first")
    return environment[name]


# ---------------------------------------------------------------- plain values → Config


def _typed(document: object, directory: Path) -> Config:
    try:
        return _anchored(_converted(document), directory)
    except msgspec.ValidationError as error:
        raise BadConfig(_told(str(error), document)) from None


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
    file = settings.file and directory / settings.file.expanduser()
    return msgspec.structs.replace(settings, file=file)


def _anchored_dashboard(settings: DashboardSettings, directory: Path) -> DashboardSettings:
    runs = settings.runs and directory / settings.runs.expanduser()
    return msgspec.structs.replace(settings, runs=runs)


def _anchored_defaults(defaults: Defaults, directory: Path) -> Defaults:
    if defaults.router is None:
        return defaults
    place = directory / defaults.router.model.expanduser()
    router = msgspec.structs.replace(defaults.router, model=place)
    return msgspec.structs.replace(defaults, router=router)


def _anchored_record(settings: RecordSettings, directory: Path) -> RecordSettings:
    archive = settings.archive
    if archive is not None and "://" not in archive.url:
        url = str(directory / Path(archive.url).expanduser())
        archive = msgspec.structs.replace(archive, url=url)
    encryption = settings.encryption
    if encryption is not None:
        keys = {id: _anchored_key(key, directory) for id, key in encryption.keys.items()}
        encryption = msgspec.structs.replace(encryption, keys=keys)
    place = directory / settings.directory.expanduser()
    return msgspec.structs.replace(
        settings, directory=place, archive=archive, encryption=encryption
    )


def _anchored_key(key: str, directory: Path) -> str:
    place = key.removeprefix("file:")
    return key if place == key else f"file:{directory / Path(place).expanduser()}"


def _anchored_backend(settings: BackendSettings, directory: Path) -> BackendSettings:
    if isinstance(settings, CloudSettings):
        return settings
    adapters = directory / settings.adapters.expanduser()
    if isinstance(settings, EmbeddedSettings):
        model = settings.base_model
        if model.endswith(".gguf"):
            model = str(directory / Path(model).expanduser())
        return msgspec.structs.replace(settings, base_model=model, adapters=adapters)
    tokenizer = settings.tokenizer and directory / settings.tokenizer.expanduser()
    return msgspec.structs.replace(settings, tokenizer=tokenizer, adapters=adapters)


_AT = re.compile(r"^(?P<what>.*?) - at (?:`key` in )?`(?P<path>[^`]+)`$", re.DOTALL)
_UNKNOWN = re.compile(r"unknown field `([^`]+)`")
_UNCHOSEN = re.compile(r"^Invalid enum value '?([^']*)'?$")


def _told(message: str, document: object) -> str:
    found = _AT.match(message)
    what, path = (found["what"], found["path"]) if found else (message, "$")
    steps = list(_steps(path, message, document))
    place = "".join(f"[{step}]" if isinstance(step, int) else f".{step}" for step in steps)
    return f"${place}: {what}{_suggestion(what, steps, document)}"


def _steps(path: str, message: str, document: object) -> Iterator[str | int]:
    """The path's steps. msgspec writes `[...]` for a mapping's key, which is found by trying."""
    here = document
    trail: list[str | int] = []
    for name, index in re.findall(r"\.([^.\[\]]+)|\[([^\]]*)\]", path):
        step: str | int = name or (int(index) if index.isdigit() else "...")
        if step == "..." and isinstance(here, dict):
            step = next((k for k in here if _fails(document, trail, k, message)), "...")
        trail.append(step)
        yield step
        here = _inside(here, step)


def _fails(document: object, trail: list[str | int], key: str, message: str) -> bool:
    """Whether the message stays the same when `key` is the mapping's only one."""
    try:
        _converted(_only(document, trail, key))
    except msgspec.ValidationError as error:
        return str(error) == message
    return False


def _only(value: object, trail: list[str | int], key: str) -> object:
    if not trail and isinstance(value, dict):
        return {key: value[key]}
    if isinstance(value, dict):
        return {k: _only(v, trail[1:], key) if k == trail[0] else v for k, v in value.items()}
    if isinstance(value, list):
        return [_only(v, trail[1:], key) if i == trail[0] else v for i, v in enumerate(value)]
    return value


def _inside(value: object, step: str | int) -> object:
    if isinstance(value, dict):
        return value.get(step)
    if isinstance(value, list) and isinstance(step, int) and step < len(value):
        return value[step]
    return None


def _suggestion(what: str, steps: list[str | int], document: object) -> str:
    if len(steps) == 3 and steps[-1] == "kind" and what.startswith("Invalid value"):
        return f"; known are: {', '.join(KINDS)}"
    here = _type_at(inspect.type_info(Config), steps, document)
    unknown = _UNKNOWN.search(what)
    if unknown is not None:
        return _near(unknown[1], _fields(here))
    chosen = _UNCHOSEN.search(what)
    return _near(chosen[1], _choices(here)) if chosen else ""


def _near(name: str, known: list[str]) -> str:
    if not known:
        return ""
    nearest = difflib.get_close_matches(name, known, n=1, cutoff=0.5)
    return f"; did you mean `{nearest[0]}`?" if nearest else f"; known are: {', '.join(known)}"


def _fields(kind: inspect.Type | None) -> list[str]:
    """Names of the fields that a struct knows."""
    if not isinstance(kind, inspect.StructType):
        return []
    tag = [kind.tag_field] if kind.tag_field else []
    return [*tag, *(field.encode_name for field in kind.fields)]


def _choices(kind: inspect.Type | None) -> list[str]:
    match kind:
        case inspect.LiteralType():
            return [str(value) for value in kind.values]
        case inspect.UnionType():
            return [choice for one in kind.types for choice in _choices(one)]
        case _:
            return []


def _type_at(kind: inspect.Type, steps: list[str | int], value: object) -> inspect.Type | None:
    """The type of what stands at the end of `steps`; None where nothing may."""
    if isinstance(kind, inspect.UnionType) and any(map(_is_struct, kind.types)):
        return _type_at(_chosen(kind, value), steps, value)
    if not steps:
        return kind
    inner: inspect.Type | None
    match kind:
        case inspect.StructType():
            inner = {field.encode_name: field.type for field in kind.fields}.get(str(steps[0]))
        case inspect.DictType():
            inner = kind.value_type
        case inspect.ListType() | inspect.VarTupleType():
            inner = kind.item_type
        case inspect.UnionType():
            inner = next((one for one in kind.types if isinstance(one, inspect.ListType)), None)
            return None if inner is None else _type_at(inner, steps, value)
        case _:
            inner = None
    return None if inner is None else _type_at(inner, steps[1:], _inside(value, steps[0]))


def _is_struct(kind: inspect.Type) -> bool:
    return isinstance(kind, inspect.StructType)


def _chosen(union: inspect.UnionType, value: object) -> inspect.Type:
    structs = [kind for kind in union.types if isinstance(kind, inspect.StructType)]
    tagged = [s for s in structs if s.tag_field and s.tag == _inside(value, s.tag_field)]
    return (tagged or structs)[0]


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
