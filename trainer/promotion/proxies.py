"""What the proxies say of a candidate: GET /ready of each, with an operator's key."""

from __future__ import annotations

import urllib.error
import urllib.request
from collections.abc import Sequence
from typing import Literal

import msgspec

from trainer.errors import PromotionError
from trainer.promotion.steps import Loaded

_TIMEOUT_S = 5.0
"""Seconds that a proxy has to answer. Chosen: /ready asks nothing of the network."""
_LIMIT = 4 * 1024 * 1024
"""Bytes of an answer that are read."""


class _Candidate(msgspec.Struct, frozen=True):
    """As `proxy.rollout.CandidateStatus` is told."""

    adapter: str
    state: Literal["loading", "proven", "refused"]
    reason: str = ""


class _Ready(msgspec.Struct, frozen=True):
    candidates: dict[str, _Candidate] | None = None


class _NoRedirects(urllib.request.HTTPRedirectHandler):
    """The key is for the proxy that was named, and for nobody that it names."""

    def redirect_request(self, *_: object) -> None:
        return None


_opener = urllib.request.build_opener(_NoRedirects, urllib.request.ProxyHandler({}))


class Proxies:
    """The proxies that serve, each by its own address."""

    def __init__(self, urls: Sequence[str], key: str = "") -> None:
        """`urls`: each proxy's, not a balancer's; with none, nobody is asked and each proxy decides
        alone when it is ready. `key`: one with `admin: true`. Raises PromotionError."""
        for url in urls:
            if not url.startswith(("http://", "https://")):
                raise PromotionError(f"{url!r} is no address of a proxy: http://… or https://…")
        self._urls = urls
        self._key = key

    def loaded(self, domain: str, adapter: str) -> Loaded:
        """Who has not proven the adapter, and why."""
        found = [(url, self._state(url, domain, adapter)) for url in self._urls]
        said = {
            state: [f"{url}: {one.reason or one.state}" for url, one in found if one.state == state]
            for state in ("loading", "refused")
        }
        return Loaded(said["loading"], said["refused"])

    def _state(self, url: str, domain: str, adapter: str) -> _Candidate:
        try:
            told = msgspec.json.decode(self._read(url), type=_Ready)
        except (OSError, ValueError) as error:
            return _Candidate(adapter, "loading", f"does not answer ({type(error).__name__})")
        if told.candidates is None:
            return _Candidate(adapter, "loading", "tells no candidates; is the key an admin's?")
        found = told.candidates.get(domain)
        if found is None or found.adapter != adapter:
            return _Candidate(adapter, "loading", "has not seen the candidate yet")
        return found

    def _read(self, url: str) -> bytes:
        headers = {"authorization": f"Bearer {self._key}"} if self._key else {}
        ready = url.rstrip("/").removesuffix("/v1") + "/ready"
        request = urllib.request.Request(ready, headers=headers)  # noqa: S310  # checked above
        try:
            with _opener.open(request, timeout=_TIMEOUT_S) as answer:
                content: bytes = answer.read(_LIMIT)
        except urllib.error.HTTPError as error:
            # 503 has the details, too.
            content = error.read(_LIMIT)
        return content
