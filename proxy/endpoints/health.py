"""GET /health: the event loop turns. GET /ready: a request sent now has a fair chance."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Mapping

from starlette.types import Receive, Scope, Send

from proxy.backends.base import Backend
from proxy.endpoints import send_json
from proxy.recorder import Recorder
from proxy.routing import Domain
from proxy.shadow import Shadows

_TIMEOUT = 2.0
"""Seconds that a backend has to say whether it is ready. Chosen: it asks nothing of the network."""


class Health:
    """Answers as long as the process does; asks nobody else."""

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        await send_json(send, {"status": "ok"})


class Ready:
    """200 while every domain has a backend that is ready, else 503; the body has the details.

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
    ) -> None:
        """`details` are told besides, and decide nothing: replicas, and roll-outs not done."""
        self._details = details
        self._backends = backends
        self._domains = domains
        self._is_draining = is_draining
        self._recorder = recorder
        self._shadows = shadows

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        answers = await asyncio.gather(*(_is_ready(one) for one in self._backends.values()))
        backends = dict(zip(self._backends, answers, strict=True))
        domains = {
            name: any(backends[backend] for backend in domain.plan)
            for name, domain in self._domains.items()
        }
        ready = all(domains.values()) and not self._is_draining()
        told = {
            "ready": ready,
            "draining": self._is_draining(),
            "backends": backends,
            "domains": domains,
            **self._details(),
            "record": self._recorder and self._recorder.health,
            "shadows": self._shadows and self._shadows.status(),
        }
        await send_json(send, told, 200 if ready else 503)


async def _is_ready(backend: Backend) -> bool:
    try:
        async with asyncio.timeout(_TIMEOUT):
            return await backend.ready()
    except TimeoutError:
        return False
