"""How much of a request is kept: the least that settings, domain, tenant and client agree to."""

from __future__ import annotations

from collections.abc import Mapping
from functools import lru_cache

from proxy.domains import Domain
from proxy.protocol.exchange import Level

HEADER = b"x-headrace-record"
"""Request header by which a client asks for less: `off` or `metadata`."""

_ORDER: tuple[Level, ...] = ("off", "metadata", "full")
_ASKED: Mapping[bytes, Level] = {level.encode(): level for level in _ORDER}


class Consent:
    """Knows what each domain and tenant allows."""

    def __init__(
        self, level: Level, domains: Mapping[str, Domain], tenants: Mapping[str, Level]
    ) -> None:
        self._level = level
        self._domains = domains
        self._tenants = tenants
        self._allowed = lru_cache(maxsize=1024)(self._least_of)

    def level(
        self, domain: str, tenant: str, headers: Mapping[bytes, bytes], store: bool | None
    ) -> Level:
        """How much may be kept; `store` is OpenAI's field, obeyed where the domain says so.

        A value of the header that is not understood counts as `off`: it was meant to be less.
        """
        rules = self._domains.get(domain)
        if store is False and rules is not None and rules.obey_store:
            return "off"
        asked, allowed = headers.get(HEADER), self._allowed(domain, tenant)
        if asked is None:
            return allowed
        return _least(allowed, _ASKED.get(asked.strip().lower(), "off"))

    def _least_of(self, domain: str, tenant: str) -> Level:
        rules = self._domains.get(domain)
        of_domain = (rules and rules.record) or "full"
        return _least(self._level, of_domain, self._tenants.get(tenant, "full"))


def _least(*levels: Level) -> Level:
    return min(levels, key=_ORDER.index)
