"""Where the tools are in a request's body: clients send the same ones again and again, and what is
known of them need not be found out anew."""

from __future__ import annotations

import threading
from typing import NamedTuple

import msgspec

MAX_SIZE = 1024 * 1024
"""Bytes of tools that are worth remembering, which bounds what that takes."""
_OPENING = 96
"""Bytes of the tools that are looked for. Chosen: short enough to be found at once, and long enough
not to be there twice: else the tools are not told from the rest."""
_KEY = b'"tools":'
_MARK = b'"the tools were here"'
_MAX_REMEMBERED = 64 * 1024
_OPENINGS, _ALIKE = 64, 4
"""How many openings are remembered, and how many lists of tools that begin alike: 16 MiB."""


class Tools(NamedTuple):
    """The tools of a body, as they came."""

    json: bytes
    at: int

    def cut(self, body: bytes) -> bytes:
        """The body with `null` in their place."""
        return body[: self.at] + b"null" + body[self.at + len(self.json) :]


class _Body(msgspec.Struct):
    tools: msgspec.Raw = msgspec.Raw(b"")


_decoder = msgspec.json.Decoder(_Body)


_lately: dict[bytes, tuple[bytes, ...]] = {}
"""Opening → the tools that began so, the latest first."""
_remembering = threading.Lock()


def find(body: bytes) -> Tools | None:
    """The tools of a body; None where there are none, or too many, or no telling where.

    Those that came lately are known by their bytes, without being read.
    """
    return _found_again(body) or _found_anew(body)


def _found_again(body: bytes) -> Tools | None:
    at = body.find(_KEY) + len(_KEY)
    for tools in _lately.get(body[at : at + _OPENING], ()):
        if body.startswith(tools, at) and _are_its_own(tools, at, body):
            return Tools(tools, at)
    return None


def _are_its_own(tools: bytes, at: int, body: bytes) -> bool:
    """Whether these are the body's tools, and not something of that name further in."""
    marked = body[:at] + _MARK + body[at + len(tools) :]
    try:
        return bytes(_decoder.decode(marked).tools) == _MARK
    except (ValueError, RecursionError):
        return False


def _found_anew(body: bytes) -> Tools | None:
    try:
        tools = bytes(_decoder.decode(body).tools)
    except (ValueError, RecursionError):
        return None
    opening = tools[:_OPENING]
    # With a quote in them they are in no string: there, it would have a backslash before it.
    if len(tools) > MAX_SIZE or b'"' not in opening:
        return None
    at = body.find(opening)
    if not body.startswith(tools, at) or body.find(opening, at + 1) >= 0:
        return None
    if _OPENING <= len(tools) <= _MAX_REMEMBERED:
        _remember(tools, opening)
    return Tools(tools, at)


def _remember(tools: bytes, opening: bytes) -> None:
    with _remembering:
        others = [one for one in _lately.pop(opening, ()) if one != tools]
        _lately[opening] = (tools, *others[: _ALIKE - 1])
        if len(_lately) > _OPENINGS:
            del _lately[next(iter(_lately))]
