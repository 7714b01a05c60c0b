"""routes.yaml, typed: what is served, by whom, and how much.

Every key is known here; an unknown one is an error that names its path. Secrets are references to
the environment (`${NAME}`). Relative paths start at the directory of the file.
"""

from __future__ import annotations

import difflib
import os
import re
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Annotated, Any, Literal

import msgspec
import yaml
from msgspec import inspect

from proxy.auth import AuthSettings
from proxy.backends.settings import (
    KINDS,
    BackendSettings,
    CloudSettings,
    EmbeddedSettings,
)
from proxy.errors import BadConfig
from proxy.limits import LimitSettings
from proxy.record.settings import RecordSettings
from proxy.report.settings import CostSettings
from proxy.routing import Defaults, Domain, clashes


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
    limits: LimitSettings = LimitSettings()
    """What the proxy takes on."""
    costs: CostSettings | None = None
    """What own hardware costs, for `headrace report costs`. Default none: it is not known."""


def load(path: Path) -> Config:
    """The settings in `path`; raises BadConfig that names the file, the place and the remedy."""
    try:
        return parse(path.read_text(), path.parent, os.environ)
    except OSError as error:
        raise BadConfig(f"{path}: {error.strerror}; name another with --config") from error
    except UnicodeDecodeError as error:
        raise BadConfig(f"{path}: not UTF-8 text ({error.reason} at byte {error.start})") from error
    except BadConfig as error:
        raise BadConfig(f"{path}: {error}") from error


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
        if key.value in seen:
            raise BadConfig(f"line {key.start_mark.line + 1}: the key {key.value!r} occurs twice")
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
    return msgspec.structs.replace(config, backends=backends, record=record)


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
    unknown = _UNKNOWN.search(what)
    if unknown is None:
        return ""
    known = _fields(inspect.type_info(Config), steps, document)
    nearest = difflib.get_close_matches(unknown[1], known, n=1, cutoff=0.5)
    return f"; did you mean `{nearest[0]}`?" if nearest else f"; known are: {', '.join(known)}"


def _fields(kind: inspect.Type, steps: list[str | int], value: object) -> list[str]:
    """Names of the fields that the struct at the end of `steps` knows."""
    match kind:
        case inspect.UnionType():
            return _fields(_chosen(kind, value), steps, value)
        case inspect.StructType() if not steps:
            tag = [kind.tag_field] if kind.tag_field else []
            return [*tag, *(field.encode_name for field in kind.fields)]
        case inspect.StructType():
            inner = {field.encode_name: field.type for field in kind.fields}[str(steps[0])]
        case inspect.DictType():
            inner = kind.value_type
        case inspect.ListType():
            inner = kind.item_type
        case _:
            return []
    return _fields(inner, steps[1:], _inside(value, steps[0]))


def _chosen(union: inspect.UnionType, value: object) -> inspect.Type:
    structs = [kind for kind in union.types if isinstance(kind, inspect.StructType)]
    tagged = [s for s in structs if s.tag_field and s.tag == _inside(value, s.tag_field)]
    return (tagged or structs)[0]


# ---------------------------------------------------------------- contradictions


def _contradictions(config: Config) -> Iterator[str]:
    for name, domain in config.domains.items():
        yield from _bad_plan(f"$.domains.{name}.plan", domain.plan, config.backends)
    for field in ("tools", "chat"):
        default = getattr(config.defaults, field)
        if default not in config.domains:
            yield f"$.defaults.{field}: no domain {default!r}{_nearest(default, config.domains)}"
    for clash in clashes(config.domains):
        yield f"$.domains: {clash}"


def _bad_plan(path: str, plan: list[str], backends: Mapping[str, object]) -> Iterator[str]:
    if not plan:
        yield f"{path}: no backend would answer; name at least one of {', '.join(backends)}"
    for index, name in enumerate(plan):
        if name not in backends:
            yield f"{path}[{index}]: no backend {name!r}{_nearest(name, backends)}"
        if name in plan[:index]:
            yield f"{path}[{index}]: {name!r} is in the plan already"


def _nearest(name: str, known: Mapping[str, object]) -> str:
    nearest = difflib.get_close_matches(name, known, n=1, cutoff=0.5)
    return f"; did you mean {nearest[0]!r}?" if nearest else f"; known are: {', '.join(known)}"
