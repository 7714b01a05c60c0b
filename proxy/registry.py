"""Follows a registry in a bucket: what serves now, or soon, comes into the adapters directory.

    bucket: champions.json ──▶ bundles that it names, proven ──▶ adapters/<id>/
                           └─────────── last of all ──────────▶ adapters/champions.json

From there rollout.py takes over, as if somebody had written the directory by hand. A bucket that is
away changes nothing: what stands in the directory goes on serving, and a proxy that starts then
starts with that. Several processes, or machines, may follow into one directory.
"""

from __future__ import annotations

import asyncio
import shutil
from collections.abc import Collection
from pathlib import Path

import structlog

from proxy.backends.settings import LocalSettings, RegistrySettings
from proxy.beside import missing
from proxy.errors import BadConfig
from proxy.protocol import champions
from proxy.protocol.adapter import ADAPTER_ID, MANIFEST, AdapterError
from proxy.protocol.bundles import open_bundles
from proxy.protocol.champions import CHAMPIONS, Champions
from proxy.protocol.signature import SignatureError, Trusted
from proxy.protocol.store import DirectoryStore, StoreError

log = structlog.get_logger(__name__)


def trusted(place: str, settings: LocalSettings) -> Trusted | None:
    """Whose bundles a backend serves; None: anybody's. Raises BadConfig and MissingExtra."""
    if not settings.signed_by:
        return None
    try:
        return Trusted(settings.signed_by)
    except SignatureError as error:
        raise BadConfig(f"{place}.signed_by: {error}") from error
    except ImportError as error:
        raise missing(f"{place}.signed_by", "signed", error) from error


class Follower:
    """Keeps the adapters directory of a backend as its registry says."""

    def __init__(
        self,
        place: str,
        settings: RegistrySettings,
        directory: Path,
        domains: Collection[str],
        canaries: Collection[str] = (),
        trusted: Trusted | None = None,
    ) -> None:
        """`canaries` are adapters that routes.yaml names besides. Raises BadConfig for a URL that
        is none, and MissingExtra."""
        try:
            self._there = open_bundles(settings.url, settings.options)
        except StoreError as error:
            raise BadConfig(f"{place}.registry: {error}") from error
        except ImportError as error:
            raise missing(f"{place}.registry", "bucket", error) from error
        self._settings = settings
        self._directory = directory
        self._domains = domains
        self._canaries = canaries
        self._trusted = trusted
        self._seen: str | None = None
        """Tag of the champion file that the directory follows."""
        self._told: type[Exception] | None = None
        """The kind of trouble that the log has last; None where all is well."""

    async def run(self) -> None:
        """Follow until cancelled."""
        while True:
            await asyncio.sleep(self._settings.every_s)
            await self.look()

    async def look(self) -> None:
        """Look once; what is in the way is told, and tried again the next time."""
        try:
            await asyncio.to_thread(self.follow)
        except (AdapterError, OSError) as error:
            # A bucket's messages differ each time: in how long it was tried, for one.
            if type(error) is not self._told:
                log.warning("registry_not_followed", registry=self._name, reason=str(error))
            self._told = type(error)
        else:
            if self._told is not None:
                log.info("registry_followed_again", registry=self._name)
            self._told = None

    def follow(self) -> None:
        """Bring the directory up to the registry; blocks. Raises AdapterError: then the champions
        of before stand there, untouched."""
        there = self._there.store.read(CHAMPIONS, champions.LIMIT)
        if there is None or there.tag == self._seen:
            return
        fresh = champions.decode(there.content, f"{self._name}/{CHAMPIONS}")
        for id in sorted(self._named(fresh)):
            self._there.get(id, self._directory, self._trusted)
        here = DirectoryStore(self._directory)
        before = here.read(CHAMPIONS, champions.LIMIT)
        if before is None or before.content != there.content:
            here.swap(CHAMPIONS, there.content, before.tag if before else None)
            log.info("registry_followed", registry=self._name, revision=fresh.revision)
        old = champions.decode(before.content) if before else Champions()
        self._forget(self._named(fresh) | self._named(old))
        self._seen = there.tag

    @property
    def _name(self) -> str:
        return str(self._there.store)

    def _named(self, said: Champions) -> set[str]:
        """Adapters that may have to answer soon: a roll-back must not wait for a copy."""
        found = set(self._canaries)
        for domain in said.domains.keys() & set(self._domains):
            alias = said.domains[domain]
            candidate = alias.candidate.adapter if alias.candidate else None
            found |= {id for id in (alias.champion, alias.previous, candidate) if id}
        return found

    def _forget(self, needed: set[str]) -> None:
        """Remove bundles that nobody names any more, if the registry has them still."""
        found = (path.parent.name for path in self._directory.glob(f"*/{MANIFEST}"))
        idle = [id for id in found if ADAPTER_ID.fullmatch(id) and id not in needed]
        for id in set(idle).intersection(self._there.ids() if idle else ()):
            shutil.rmtree(self._directory / id, ignore_errors=True)
            log.info("adapter_forgotten", adapter=id)
