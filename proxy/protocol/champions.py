"""The champion file: which adapter serves which domain, and which one is on its way there.

`champions.json` stands beside the bundles, in a directory or a bucket. It is read and written here
only, whole: a reader sees the old or the new one. Each change raises its revision and must name the
one that it was decided on (compare-and-swap): of two that race, one wins and the other gets
Conflict. The file says who changed it last, and the folder `.history` has each change by its
revision; what a writer that died left out of it, the next one puts there.

    1  {domain: adapter id}
    2  revision, previous champion, candidate, cooldown
"""

from __future__ import annotations

import getpass
import os
import re
import secrets
import socket
from contextlib import suppress
from datetime import UTC, datetime
from pathlib import Path
from typing import Annotated, Literal, TypeAlias

import msgspec
from msgspec.structs import replace

from proxy.protocol import taints
from proxy.protocol.adapter import ADAPTER_ID, AdapterError
from proxy.protocol.store import DirectoryStore, Store, StoreError, Swapped

CHAMPIONS = "champions.json"
HISTORY = ".history"
VERSION = 2
LIMIT = 1024 * 1024
"""Bytes of the champion file, at most: some thousand domains."""
_NUMBERED = re.compile(rf"{re.escape(HISTORY)}/(\d{{8,}})\.json")

Stage: TypeAlias = Literal["loading", "shadow", "canary", "full"]


class Candidate(msgspec.Struct, frozen=True, kw_only=True):
    """An adapter that is being tried in front of clients, or about to be."""

    adapter: str
    share: Annotated[float, msgspec.Meta(ge=0, le=1)] = 0.0
    """Of the domain's requests, those that it answers."""
    stage: Stage = "loading"
    since: str = ""
    """When it came to this stage; ISO 8601, UTC."""
    run: str = ""
    """Id of the run that made it."""


class Alias(msgspec.Struct, frozen=True, kw_only=True):
    """What the name of a domain stands for."""

    champion: str | None = None
    """Id of the adapter that answers; None: the base model."""
    since: str = ""
    """When it became the champion; ISO 8601, UTC; empty where the file's old form did not say."""
    previous: str | None = None
    """The champion before: what a rollback goes back to."""
    candidate: Candidate | None = None
    cooldown_until: str | None = None
    """No candidate before then; ISO 8601, UTC."""


class Change(msgspec.Struct, frozen=True, kw_only=True, rename={"before": "from", "after": "to"}):
    """One change, as the history keeps it."""

    revision: int
    """Of the file that the change made."""
    at: str
    """ISO 8601, UTC."""
    who: str
    domain: str
    before: Alias | None
    after: Alias | None
    reason: str
    id: str = ""
    """Drawn by chance: tells a writer's change from another's that is alike."""


class Champions(msgspec.Struct, frozen=True, kw_only=True):
    """The champion file."""

    version: int = VERSION
    revision: int = 0
    """0: nobody has written it in this form yet."""
    domains: dict[str, Alias] = {}
    last: Change | None = None
    """What made this revision."""

    @property
    def serving(self) -> dict[str, str]:
        """Domain → id of its champion."""
        return {
            name: one.champion for name, one in self.domains.items() if one.champion is not None
        }


class Conflict(AdapterError):
    """Another change came first; the message says whose."""

    def __init__(self, where: Store, there: Champions, expected: int) -> None:
        self.there = there
        """The champions as they are now."""
        last = there.last
        by = f", by {last.who}, {last.at}, for {last.domain}: {last.reason}" if last else ""
        super().__init__(
            f"{where}/{CHAMPIONS} is at revision {there.revision} and not {expected}{by};"
            " look at it, and decide again"
        )


def read(where: Path | Store) -> Champions:
    """The champions of a directory or bucket, none where there is no file yet.

    Raises AdapterError for a file that is broken, or newer than this program.
    """
    return _seen(_store(where))[0]


def change(
    where: Path | Store,
    domain: str,
    alias: Alias | None,
    expected_revision: int,
    reason: str,
    *,
    who: str | None = None,
) -> Champions:
    """Let a domain's name stand for this (None: for nothing) from now on; the file as it is then.

    `expected_revision` is that of the file which the change was decided on. `who` is the user on
    this machine where it is not said. Raises Conflict, TaintedAdapter, and AdapterError.

    A tainted adapter gets no new role. One that has been champion stays, and may be gone back to:
    what was erased is answered by training anew, and not by an outage.
    """
    store = _store(where)
    before, tag = _seen(store)
    if before.revision != expected_revision:
        raise Conflict(store, before, expected_revision)
    _require_names(alias)
    known = before.domains.get(domain, Alias())
    for id in sorted(_answering(alias) - {known.champion, known.previous}):
        taints.require_clean(store, id)
    change = Change(
        revision=_next(store, before),
        at=now(),
        who=who or _user(),
        domain=domain,
        before=before.domains.get(domain),
        after=alias,
        reason=reason,
        id=secrets.token_hex(8),
    )
    after = _after(before, change)
    if before.last is not None:
        _keep(store, before.last)
    try:
        store.swap(CHAMPIONS, _pretty(after), tag)
    except Swapped:
        # A bucket may have done what was asked, and its answer was lost: then the change is ours.
        if (there := read(store)) != after:
            raise Conflict(store, there, expected_revision) from None
    # What has been changed has been changed: the next writer keeps what this one could not.
    with suppress(StoreError):
        _keep(store, change)
    return after


def appoint(where: Path | Store, domain: str, adapter: str, reason: str) -> Champions:
    """Make an adapter the champion at once; a candidate ends with it. Raises as `change`."""
    there = read(where)
    before = there.domains.get(domain, Alias())
    if before == Alias(champion=adapter, since=before.since, previous=before.previous):
        return there
    previous = before.previous if before.champion == adapter else before.champion
    alias = Alias(champion=adapter, since=now(), previous=previous)
    return change(where, domain, alias, there.revision, reason)


def history(where: Path | Store, domain: str | None = None) -> list[Change]:
    """All changes, or a domain's, oldest first. Raises AdapterError."""
    store = _store(where)
    last = read(store).last
    kept = [path for path in store.paths(HISTORY) if _NUMBERED.fullmatch(path)]
    changes = {one.revision: one for one in (_change(store, path) for path in kept)}
    if last is not None:
        changes[last.revision] = last
    found = (changes[revision] for revision in sorted(changes))
    return [one for one in found if domain in (None, one.domain)]


def decode(content: bytes, name: str = CHAMPIONS) -> Champions:
    """A champion file of any version up to ours; raises AdapterError that begins with `name`."""
    try:
        said = msgspec.json.decode(content, type=dict[str, msgspec.Raw])
        version = msgspec.json.decode(said.get("version", b'""'))
        # In the old form everything is a domain, one of the name `version` included.
        if not isinstance(version, int):
            serving = msgspec.json.decode(content, type=dict[str, str])
            return Champions(domains={name: Alias(champion=id) for name, id in serving.items()})
        if version > VERSION:
            raise AdapterError(
                f"{name} was written by a newer release (its version is {version}, this one reads"
                f" up to {VERSION}); upgrade this one"
            )
        return msgspec.json.decode(content, type=Champions)
    except (msgspec.MsgspecError, UnicodeDecodeError, RecursionError) as error:
        raise AdapterError(f"{name}: {error}") from error


def now() -> str:
    """The time as the champion file has it: ISO 8601, UTC, to the second."""
    return datetime.now(UTC).strftime("%Y-%m-%dT%H:%M:%SZ")


def _store(where: Path | Store) -> Store:
    return DirectoryStore(where) if isinstance(where, Path) else where


def _seen(store: Store) -> tuple[Champions, str | None]:
    held = store.read(CHAMPIONS, LIMIT)
    if held is None:
        return Champions(), None
    return decode(held.content, f"{store}/{CHAMPIONS}"), held.tag


def _next(store: Store, before: Champions) -> int:
    """One more than the last: the history's where somebody wrote the file by hand."""
    if before.last is not None:
        return before.revision + 1
    kept = [found for path in store.paths(HISTORY) if (found := _NUMBERED.fullmatch(path))]
    return max([before.revision, *(int(one[1]) for one in kept)]) + 1


def _after(before: Champions, change: Change) -> Champions:
    domains = {name: one for name, one in before.domains.items() if name != change.domain}
    if change.after is not None:
        domains[change.domain] = change.after
    named = dict(sorted(domains.items()))
    return replace(before, version=VERSION, revision=change.revision, domains=named, last=change)


def _answering(alias: Alias | None) -> set[str]:
    """Who is to answer clients, or about to."""
    if alias is None:
        return set()
    candidate = alias.candidate.adapter if alias.candidate else None
    return {id for id in (alias.champion, candidate) if id}


def _require_names(alias: Alias | None) -> None:
    previous = {alias.previous} if alias and alias.previous else set()
    for id in _answering(alias) | previous:
        if not ADAPTER_ID.fullmatch(id):
            raise AdapterError(f"{id!r} is no adapter id (a-z, 0-9, '.', '_', '-')")


def _keep(store: Store, change: Change) -> None:
    with suppress(Swapped):
        store.create(f"{HISTORY}/{change.revision:08d}.json", _pretty(change))


def _change(store: Store, path: str) -> Change:
    held = store.read(path, LIMIT)
    try:
        return msgspec.json.decode(held.content if held else b"", type=Change)
    except (msgspec.MsgspecError, UnicodeDecodeError, RecursionError) as error:
        raise AdapterError(f"{store}/{path}: {error}") from error


def _pretty(written: Champions | Change) -> bytes:
    return msgspec.json.format(msgspec.json.encode(written), indent=2) + b"\n"


def _user() -> str:
    try:
        name = getpass.getuser()
    except (KeyError, OSError):  # a container whose user has no name
        name = str(os.getuid())
    return f"{name}@{socket.gethostname()}"
