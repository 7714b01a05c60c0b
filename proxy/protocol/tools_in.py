"""Where the tools are in a request's body: clients send the same ones again and again, and what is
known of them need not be found out anew."""

from __future__ import annotations

from typing import NamedTuple

import msgspec

MAX_SIZE = 1024 * 1024
"""Bytes of tools that are worth remembering, which bounds what that takes."""
_OPENING = 96
"""Bytes of the tools that are looked for. Chosen: short enough to be found at once, and long enough
not to be there twice: else the tools are not told from the rest."""


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


def find(body: bytes) -> Tools | None:
    """The tools of a body; None where there are none, or too many, or no telling where."""
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
    return Tools(tools, at)
