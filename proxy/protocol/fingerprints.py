"""Fingerprints of tools: what an adapter was trained on, and what a request offers.

Wording does not count (descriptions, titles, examples, comments), nor does the order of keys: an
adapter must not be taken out of service because a sentence was polished.
"""

from __future__ import annotations

import functools
import hashlib
from collections.abc import Iterable

import msgspec

from proxy.protocol import schemas
from proxy.protocol.openai import ChatRequest, Function, MalformedRequest, Tool
from proxy.protocol.schemas import BrokenSchema, Json

_REMEMBERED = 256
"""Lists of tools whose fingerprint is known; `parse_request` bounds their size."""


def fingerprint(function: Function) -> str:
    """`sha256:…` of a function's name and of what its schema allows; raises MalformedRequest when
    the parameters are no JSON object."""
    return _fingerprint(function.name, schemas.of(function))


def fingerprint_offered(request: ChatRequest) -> str | None:
    """`fingerprint_tools` of what a request offers; None where that is nothing."""
    if request.tools_json:
        return _fingerprint_remembered(request.tools_json)
    return fingerprint_tools(request.offered) if request.offered else None


@functools.lru_cache(maxsize=_REMEMBERED)
def _fingerprint_remembered(tools: bytes) -> str | None:
    offered = [tool.function for tool in msgspec.json.decode(tools, type=list[Tool])]
    functions = [function for function in offered if function is not None]
    return fingerprint_tools(functions) if functions else None


def fingerprint_tools(functions: Iterable[Function]) -> str:
    """`sha256:…` of a set of functions, whatever their order."""
    return _sha256("\n".join(sorted(map(fingerprint, functions))).encode())


@functools.lru_cache(maxsize=1024)
def _fingerprint(name: str, schema: bytes) -> str:
    try:
        plain = schemas.changed(schemas.loaded(schema), _without_wording)
    except BrokenSchema as error:
        raise MalformedRequest(f"function {name!r}: {error}") from None
    canonical = {"name": name, "parameters": plain}
    return _sha256(msgspec.json.encode(canonical, order="deterministic"))


def _sha256(content: bytes) -> str:
    return f"sha256:{hashlib.sha256(content).hexdigest()}"


def _without_wording(schema: dict[str, Json]) -> dict[str, Json]:
    wording = ("description", "title", "examples", "$comment")
    return {key: value for key, value in schema.items() if key not in wording}
