"""Whether bytes are JSON as RFC 8259 has it, told the same way by every reader.

Readers differ on what the standard leaves open or forbids: which of two equal keys counts, whether
NaN is a number, what a byte means that is not UTF-8. Such a body would be one request for us and
another for the server behind us; it is refused, with the place.
"""

from __future__ import annotations

import json
import re
from collections.abc import Iterator
from typing import NoReturn, TypeAlias

import msgspec

Json: TypeAlias = "bool | int | float | str | list[Json] | dict[str, Json] | None"


_SURROGATE = re.compile(r"\\u[dD][89a-fA-F]")
"""What may be half of a pair; in most texts there is none, and looking is cheap."""


_reader, _writer = msgspec.json.Decoder(), msgspec.json.Encoder()
_SPACED, _SOON = b'": ', 64
"""What is there, and how soon, where keys and values are set apart: not as we write."""


_TOLD = 256
"""Characters of a place that are told: keys are the client's, and may be as long as the body."""


class NotStrict(ValueError):
    """The bytes are no JSON, or are ambiguous. `path` is where, if that can be said."""

    def __init__(self, message: str, path: str | None = None) -> None:
        super().__init__(message)
        self.path = path


class _Repeated(ValueError):
    """A key occurs twice in one object."""


def loads(body: bytes) -> Json:
    """The value in `body`; raises NotStrict.

    Some 1 µs a KiB for what is written as we write it, without spaces, as OpenAI's clients do; else
    some 4: the price of seeing every key, which the fast reader does not show.
    """
    if _SPACED not in body[:_SOON]:
        try:
            value: Json = _reader.decode(body)
            if _writer.encode(value) == body:
                # What gives these very bytes again when it is written hides nothing.
                return value
        except (ValueError, RecursionError):
            pass  # told below
    return _loads(body)


def _loads(body: bytes) -> Json:
    text = _text(body)
    try:
        return _decoded(text)
    except NotStrict:
        raise
    except RecursionError:
        raise NotStrict("the body is nested too deeply") from None
    except json.JSONDecodeError as error:
        raise NotStrict(f"the body is not valid JSON: {error}") from None
    except ValueError:
        raise NotStrict("the body is not valid JSON: a number in it is none, or too long") from None


def _decoded(text: str) -> Json:
    try:
        value: Json = _decoder.decode(text)
    except _Repeated:
        # What follows the key may be no JSON at all, which is then what is told.
        raise _told(text) from None
    return value


def _text(body: bytes) -> str:
    try:
        text = body.decode()
    except UnicodeDecodeError as error:
        raise NotStrict(f"the body is not valid UTF-8: byte {error.start} cannot be read") from None
    if _SURROGATE.search(text) and _has_lone_surrogate(text):
        raise NotStrict("the body escapes half of a surrogate pair, which is no character")
    return text


def _has_lone_surrogate(text: str) -> bool:
    try:
        json.dumps(json.loads(text), ensure_ascii=False).encode()
    except UnicodeEncodeError:
        return True
    except (ValueError, RecursionError):
        # What else is wrong with it is told by the caller.
        return False
    return False


def _unique(pairs: list[tuple[str, Json]]) -> dict[str, Json]:
    made = dict(pairs)
    if len(made) != len(pairs):
        raise _Repeated
    return made


def _no_constant(name: str) -> NoReturn:
    """NaN and Infinity, which Python would read."""
    raise ValueError(name)


_decoder = json.JSONDecoder(object_pairs_hook=_unique, parse_constant=_no_constant)


# ---------------------------------------------------------------- where a key is repeated


class _Pairs(list[tuple[str, object]]):
    """An object's keys and values, repeated ones included."""


def _told(text: str) -> NotStrict:
    whole = json.loads(text, object_pairs_hook=_Pairs)
    path = next(_repeated(whole, "$"), "$")[:_TOLD]
    return NotStrict(
        f"a key occurs twice, and readers differ on which one counts (at {path})", path
    )


def _repeated(value: object, path: str) -> Iterator[str]:
    if isinstance(value, _Pairs):
        seen: set[str] = set()
        for key, inner in value:
            if key in seen:
                yield f"{path}.{key}"
            seen.add(key)
            yield from _repeated(inner, f"{path}.{key}")
    elif isinstance(value, list):
        for index, inner in enumerate(value):
            yield from _repeated(inner, f"{path}[{index}]")
