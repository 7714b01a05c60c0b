"""One spelling of a JSON value: sorted keys, no spaces, numbers in one form.

As RFC 8785 has it, but for keys, which are sorted by code point, and for integers, which keep all
their digits. Equal values have equal texts, so that a hash over them does not see how a client
happened to write them.
"""

from __future__ import annotations

import functools
import json
import math

from proxy.protocol import strict_json
from proxy.protocol.strict_json import Json

_EXACT = 2**53
"""Integers up to here are the same number as a float."""


@functools.lru_cache(maxsize=4096)
def canonical(text: str) -> str:
    """The text with its JSON value spelt canonically; as it is, where it is no JSON."""
    try:
        return _dumps(_plain(strict_json.loads(text.encode())))
    except (ValueError, RecursionError):
        return text


def _dumps(value: Json) -> str:
    return json.dumps(
        value, ensure_ascii=False, sort_keys=True, separators=(",", ":"), allow_nan=False
    )


def _plain(value: Json) -> Json:
    match value:
        case float():
            return _number(value)
        case dict():
            return {key: _plain(inner) for key, inner in value.items()}
        case list():
            return [_plain(inner) for inner in value]
        case _:
            return value


def _number(value: float) -> Json:
    """1.0 and 1e0 are 1; what is too large for a float stays as it was written."""
    if not math.isfinite(value):
        raise ValueError("a number beyond what a float can hold")
    return int(value) if value.is_integer() and abs(value) < _EXACT else value
