"""Marks of bundles that must not be promoted: something that they learnt from was erased.

They stand beside the champion file, one file a bundle, and are made once.
"""

from __future__ import annotations

from contextlib import suppress
from pathlib import PurePosixPath

import msgspec

from proxy.protocol.adapter import AdapterError
from proxy.protocol.store import Store, Swapped

TAINTS = ".taints"
_LIMIT = 64 * 1024


class Taint(msgspec.Struct, frozen=True, kw_only=True):
    """Why a bundle must not be promoted."""

    exchanges: int
    """How many it learnt from that were erased."""
    found_at: str
    """ISO 8601, UTC."""


class TaintedAdapter(AdapterError):
    """It was to get a new role; the message says what to do instead."""


def read(store: Store, id: str) -> Taint | None:
    """The mark of a bundle, if it has one. Raises AdapterError."""
    held = store.read(f"{TAINTS}/{id}.json", _LIMIT)
    if held is None:
        return None
    try:
        return msgspec.json.decode(held.content, type=Taint)
    except (msgspec.MsgspecError, UnicodeDecodeError, RecursionError) as error:
        raise AdapterError(f"{store}/{TAINTS}/{id}.json: {error}") from error


def read_all(store: Store) -> dict[str, Taint]:
    """Bundle → its mark. Raises AdapterError."""
    ids = [PurePosixPath(path).stem for path in store.paths(TAINTS)]
    return {id: taint for id in ids if (taint := read(store, id)) is not None}


def mark(store: Store, id: str, taint: Taint) -> None:
    """Mark a bundle, unless it is marked already. Raises AdapterError."""
    with suppress(Swapped):
        store.create(f"{TAINTS}/{id}.json", msgspec.json.encode(taint))


def require_clean(store: Store, id: str) -> None:
    """Raises TaintedAdapter for a bundle that is marked."""
    taint = read(store, id)
    if taint is not None:
        raise TaintedAdapter(
            f"{id} is tainted: {taint.exchanges} of the exchanges that it learnt from were erased;"
            " train its domain again without them"
        )
