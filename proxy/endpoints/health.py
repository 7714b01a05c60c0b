"""GET /health: the event loop turns. GET /ready: a request sent now has a fair chance.
GET /startup: there was a time when it had.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Mapping

from starlette.types import Receive, Scope, Send

from proxy.auth import Authenticator
from proxy.backends.base import Backend
from proxy.domains import Domain
from proxy.endpoints import caller_of, send_json
from proxy.errors import Unauthenticated
from proxy.recorder import Recorder
from proxy.shadow import Shadows

_TIMEOUT = 2.0
"""Seconds that a backend has to say whether it is ready. Chosen: it asks nothing of the network."""


class Health:
    """Answers as long as the process does; asks nobody else."""

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        await send_json(send, {"status": "ok"})


class Ready:
    """200 while every domain has a backend that is ready, else 503; an operator gets the details.

    Whoever has no admin key learns of no tenant's domains, and whether it is ready all the same.

    A record that fails is among them, and no reason for 503: requests go on without it.
    """

    def __init__(
        self,
        backends: Mapping[str, Backend],
        domains: Mapping[str, Domain],
        is_draining: Callable[[], bool],
        details: Callable[[], Mapping[str, object]] = dict,
        recorder: Recorder | None = None,
        shadows: Shadows | None = None,
        auth: Authenticator | None = None,
    ) -> None:
        """`details` are told besides, and decide nothing: replicas, and roll-outs not done."""
        self._details = details
        self._backends = backends
        self._domains = domains
        self._is_draining = is_draining
        self._recorder = recorder
        self._shadows = shadows
        self._auth = auth or Authenticator([])

    async def domains(self) -> tuple[dict[str, bool], dict[str, bool]]:
        """Whether each backend is ready, and whether each domain has one that is."""
        answers = await asyncio.gather(*(_is_ready(one) for one in self._backends.values()))
        backends = dict(zip(self._backends, answers, strict=True))
        domains = {
            name: any(backends[backend] for backend in domain.plan)
            for name, domain in self._domains.items()
        }
        return backends, domains

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        backends, domains = await self.domains()
        ready = all(domains.values()) and not self._is_draining()
        told: dict[str, object] = {"ready": ready, "draining": self._is_draining()}
        if self._is_operator(scope):
            told |= self._all(backends, domains)
        await send_json(send, told, 200 if ready else 503)

    def _is_operator(self, scope: Scope) -> bool:
        try:
            return caller_of(scope, self._auth).is_admin
        except Unauthenticated:
            return False

    def _all(self, backends: Mapping[str, bool], domains: Mapping[str, bool]) -> dict[str, object]:
        return {
            "backends": backends,
            "domains": domains,
            **self._details(),
            "record": self._recorder and self._recorder.health,
            "shadows": self._shadows and self._shadows.status(),
            "candidate_shadows": self._shadows and self._shadows.trials(),
        }


class Startup:
    """200 from the moment on when every domain had a backend that was ready; until then 503.

    It never goes back: what fails later is no reason to begin anew.
    """

    def __init__(self, ready: Ready) -> None:
        self._ready = ready
        self._has_started = False

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if not self._has_started:
            _, domains = await self._ready.domains()
            self._has_started = all(domains.values())
        await send_json(send, {"started": self._has_started}, 200 if self._has_started else 503)


async def _is_ready(backend: Backend) -> bool:
    try:
        async with asyncio.timeout(_TIMEOUT):
            return await backend.ready()
    except TimeoutError:
        return False
