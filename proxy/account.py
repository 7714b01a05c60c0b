"""What a cloud keeps for its account is not for every tenant: all of them share the one key.

A file, a batch, a stored response: whoever has the account's key gets it by its id, and lists of
ids besides. So only the tenants that the account belongs to (`auth.account_tenants`) reach what is
kept, be it by a path or by a reference in a request.
"""

from __future__ import annotations

import re
from collections.abc import Mapping

import msgspec

from proxy.auth import Caller
from proxy.errors import Forbidden

_STATELESS = re.compile(
    r"/audio/(?:speech|transcriptions|translations)|/images/(?:edits|generations|variations)"
    r"|/moderations"
)
"""Paths below /v1 where nothing is kept; what their bodies refer to is to be checked (OpenAI's API
reference)."""

_REFERENCES = frozenset({
    "comparison_response_id", "container", "container_id", "file_id", "file_ids", "input_file_id",
    "skill_id", "tunnel_id", "vector_store_ids",
})  # fmt: skip
"""Keys, wherever they are, whose text is the id of something kept."""
_NAMED = ("audio", "voice")
"""Keys whose object is something kept where it has an id: audio that was said, a voice of one's
own."""
_AT_THE_TOP = ("previous_response_id", "conversation")
_DEPTH = 64
_REMEDY = "is for tenants that the cloud's account belongs to (auth.account_tenants)"


def check_path(caller: Caller, method: str, path: str) -> None:
    """Raise Forbidden for what the caller may not do at a path below /v1, given without it."""
    if caller.has_account or (method == "POST" and _STATELESS.fullmatch(path)):
        return
    raise Forbidden(f"what is kept at {path[:128]!r} {_REMEDY}")


def check_body(caller: Caller, body: bytes) -> None:
    """Raise Forbidden for a JSON request that refers to what is kept, or has something kept.

    What is no JSON object is left to whoever reads it next.
    """
    if caller.has_account:
        return
    try:
        request = msgspec.json.decode(body, type=dict[str, object])
    except (ValueError, RecursionError):
        return
    named = _at_the_top(request) or _reference(request, _DEPTH)
    if named is not None:
        raise Forbidden(f"`{named}` {_REMEDY}", named)


def _at_the_top(request: Mapping[str, object]) -> str | None:
    if request.get("store") is True:
        return "store"
    # A text there is what /completions completes.
    if isinstance(request.get("prompt"), dict):
        return "prompt"
    items = request.get("input")
    if isinstance(items, list) and any(map(_is_untyped_reference, items)):
        return "item_reference"
    return next((name for name in _AT_THE_TOP if request.get(name)), None)


def _is_untyped_reference(item: object) -> bool:
    """A reference may leave out its type; else only a message may, and that has a role."""
    if not isinstance(item, dict) or item.get("type") or item.get("role"):
        return False
    return "id" in item


def _reference(value: object, depth: int) -> str | None:
    """The first key that refers to something kept; nesting beyond `depth` counts as one."""
    if depth == 0:
        return "nesting"
    if isinstance(value, list):
        return next(filter(None, (_reference(one, depth - 1) for one in value)), None)
    if not isinstance(value, dict):
        return None
    if value.get("type") == "item_reference" or _is_image_by_id(value):
        return "item_reference"
    if named := next((name for name in _NAMED if _has_id(value.get(name))), None):
        return f"{named}.id"
    for key, inner in value.items():
        if key in _REFERENCES and isinstance(inner, str | list) and inner:
            return str(key)
    return next(filter(None, (_reference(one, depth - 1) for one in value.values())), None)


def _is_image_by_id(item: Mapping[str, object]) -> bool:
    """An image that was made before, and does not come with the request."""
    return item.get("type") == "image_generation_call" and not item.get("result")


def _has_id(value: object) -> bool:
    return isinstance(value, Mapping) and isinstance(value.get("id"), str)
