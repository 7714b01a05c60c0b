"""The registry: bundles, the names that they serve under, and marks of those that must not.

It is a directory or a bucket, see proxy/protocol/bundles.py; what stands in it is whole and never
changes but for the champion file, which changes by compare-and-swap.
"""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import TypeVar

import msgspec

from proxy.protocol import champions, taints
from proxy.protocol.adapter import LINEAGE, AdapterError, Lineage, Manifest
from proxy.protocol.bundles import open_bundles
from proxy.protocol.champions import Alias, Champions, Change
from proxy.protocol.signature import SIGNATURE, Signature, Trusted
from proxy.protocol.taints import Taint
from trainer.errors import RegistryError
from trainer.registry.bundles import next_id

_T = TypeVar("_T")


class Entry(msgspec.Struct, frozen=True, kw_only=True):
    """A bundle in the list."""

    id: str
    domain: str
    roles: list[str]
    """`champion of geo`, `candidate of geo (canary, 10 %)`, `previous of geo`."""
    created_at: str
    run: str
    dataset: str
    """Fingerprint of what it was trained on."""
    signed_by: str | None
    """Id of the key; whether it is a trusted one, only who has the key can tell."""
    taint: Taint | None


class Registry:
    """Bundles of a directory or bucket. Every method raises AdapterError or RegistryError."""

    def __init__(self, where: str | Path, options: Mapping[str, str] | None = None) -> None:
        """`where`: a directory, or a URL such as `s3://bucket/prefix`; `options` of the bucket as
        obstore names them, else the environment's."""
        try:
            self._bundles = open_bundles(where, options)
        except ImportError as error:
            raise RegistryError(
                f"{where}: a bucket needs the package obstore; pip install 'headrace[bucket]'"
            ) from error

    def __str__(self) -> str:
        return str(self._bundles.store)

    def put(self, bundle: Path) -> str:
        """Keep a copy of a bundle; its id. The same one again changes nothing."""
        return self._bundles.put(bundle)

    def get(self, id: str, directory: Path, trusted: Trusted | None = None) -> Path:
        """The bundle `directory/id`, copied there unless it is there, all hashes proven."""
        return self._bundles.get(id, directory, trusted)

    def manifest(self, id: str) -> Manifest:
        """What a bundle says of itself."""
        return self._bundles.manifest(id)

    def lineage(self, id: str) -> Lineage | None:
        """What it learnt from; None in bundles from before that was kept."""
        content = self._bundles.file(id, LINEAGE)
        return None if content is None else self._decoded(content, Lineage, f"{id}/{LINEAGE}")

    def ids(self) -> list[str]:
        """All bundles, sorted."""
        return self._bundles.ids()

    def ls(self, domain: str | None = None) -> list[Entry]:
        """The bundles of a domain, or all, oldest first."""
        there, marks = self.champions(), self.taints()
        entries = [self._entry(id, there, marks.get(id)) for id in self.ids()]
        found = [one for one in entries if domain in (None, one.domain)]
        return sorted(found, key=lambda one: (one.domain, one.created_at, one.id))

    def entry(self, id: str) -> Entry:
        """One bundle, as it stands in the list."""
        return self._entry(id, self.champions(), taints.read(self._bundles.store, id))

    def next_id(self, domain: str) -> str:
        """`<domain>-v<N>`, one higher than the highest there is."""
        return next_id(domain, self.ids())

    # ------------------------------------------------------------ names

    def champions(self) -> Champions:
        """What the domains' names stand for."""
        return champions.read(self._bundles.store)

    def change(
        self,
        domain: str,
        alias: Alias | None,
        expected_revision: int,
        reason: str,
        *,
        who: str | None = None,
    ) -> Champions:
        """As `champions.change`, of bundles only that are there, whole."""
        candidate = alias.candidate.adapter if alias and alias.candidate else None
        for id in {alias.champion if alias else None, candidate} - {None}:
            self._bundles.check(str(id))
        return champions.change(
            self._bundles.store, domain, alias, expected_revision, reason, who=who
        )

    def appoint(self, id: str, reason: str, domain: str = "") -> Champions:
        """Make a bundle the champion of a domain at once, by default of its own."""
        self._bundles.check(id)
        named = domain or self.manifest(id).domain
        return champions.appoint(self._bundles.store, named, id, reason)

    def history(self, domain: str | None = None) -> list[Change]:
        """All changes of names, or a domain's, oldest first."""
        return champions.history(self._bundles.store, domain)

    # ------------------------------------------------------------ taint

    def taints(self) -> dict[str, Taint]:
        """Bundles that are marked as tainted."""
        return taints.read_all(self._bundles.store)

    def mark(self, id: str, taint: Taint) -> None:
        """Mark a bundle, once and for all: it gets no new role."""
        taints.mark(self._bundles.store, id, taint)

    def require_promotable(self, id: str) -> None:
        """Raises AdapterError for a bundle that is torn, gone or tainted."""
        self._bundles.check(id)
        taints.require_clean(self._bundles.store, id)

    # ------------------------------------------------------------ inside

    def _entry(self, id: str, there: Champions, taint: Taint | None) -> Entry:
        manifest = self.manifest(id)
        content = self._bundles.file(id, SIGNATURE)
        signature = self._decoded(content, Signature, f"{id}/{SIGNATURE}") if content else None
        return Entry(
            id=id,
            domain=manifest.domain,
            roles=[
                role for name, alias in there.domains.items() for role in _roles(id, name, alias)
            ],
            created_at=manifest.created_at,
            run=manifest.run,
            dataset=manifest.dataset_fingerprint,
            signed_by=signature.key if signature else None,
            taint=taint,
        )

    def _decoded(self, content: bytes, kind: type[_T], path: str) -> _T:
        try:
            return msgspec.json.decode(content, type=kind)
        except (msgspec.MsgspecError, UnicodeDecodeError, RecursionError) as error:
            raise AdapterError(f"{self}/{path}: {error}") from error


def _roles(id: str, domain: str, alias: Alias) -> list[str]:
    candidate = alias.candidate
    tried = f" ({candidate.stage}, {candidate.share:.0%})" if candidate else ""
    held = {
        "champion": alias.champion,
        "candidate": candidate.adapter if candidate else None,
        "previous": alias.previous,
    }
    return [
        f"{role} of {domain}{tried if role == 'candidate' else ''}"
        for role, holder in held.items()
        if holder == id
    ]
