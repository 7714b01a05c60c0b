"""YAML text to plain values: keys occur once, and `${NAME}` is the environment's."""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import Any

import yaml

from proxy.errors import BadConfig

if yaml.__with_libyaml__:
    # Eight times as fast: a thousand domains are read in 0.1 s.
    from yaml import CSafeLoader as SafeLoader
else:
    from yaml import SafeLoader  # type: ignore[assignment]


class _UniqueKeys(SafeLoader):
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


_DEEPEST, _MOST = 100, 1_000_000
"""Levels, and values, of settings. Chosen: ten times the deepest ones; 50 000
domains."""


def plain(text: str) -> object:
    """The values in a YAML text; raises BadConfig with line and column."""
    try:
        _check_size(text)
        return yaml.load(text, _UniqueKeys)  # noqa: S506  # a SafeLoader
    except yaml.MarkedYAMLError as error:
        mark = error.problem_mark
        place = f"line {mark.line + 1}, column {mark.column + 1}: " if mark else ""
        hint = '; inside { } write "${NAME}" with quotes' if "${" in _line(text, mark) else ""
        raise BadConfig(f"{place}{error.problem}{hint}") from None
    except yaml.YAMLError as error:
        raise BadConfig(f"not YAML: {error}") from None


def _check_size(text: str) -> None:
    """Raise BadConfig for what is nested too deeply, or becomes too much where its aliases stand.

    The library, in C, would end the process of the one, and find no end of the other.
    """
    sizes, anchors, whole = [0], [""], dict[str, int]()
    for event in yaml.parse(text, SafeLoader):
        match event:
            case yaml.CollectionStartEvent():
                sizes.append(1)
                anchors.append(event.anchor or "")
            case yaml.CollectionEndEvent():
                size = sizes.pop()
                whole[anchors.pop()] = size
                sizes[-1] += size
            case yaml.AliasEvent():
                sizes[-1] += whole.get(event.anchor or "", 1)
            case yaml.ScalarEvent():
                sizes[-1] += 1
        if len(sizes) > _DEEPEST or sizes[-1] > _MOST:
            line = event.start_mark.line + 1 if event.start_mark else 1
            raise BadConfig(f"line {line}: more, or deeper, than any settings are")


def _line(text: str, mark: yaml.Mark | None) -> str:
    return text.splitlines()[mark.line] if mark and mark.line < len(text.splitlines()) else ""


_REFERENCE = re.compile(r"\$\{([A-Za-z_][A-Za-z0-9_]*)\}")


def with_environment(value: object, environment: Mapping[str, str], path: str = "$") -> object:
    """The values with each `${NAME}` replaced; BadConfig tells the path of one that is not set."""
    match value:
        case dict():
            return {
                key: with_environment(item, environment, f"{path}.{key}")
                for key, item in value.items()
            }
        case list():
            return [
                with_environment(item, environment, f"{path}[{index}]")
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
