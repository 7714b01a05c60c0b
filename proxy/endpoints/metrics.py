"""GET /metrics: what happened, and what is so now, in the forms that Prometheus reads."""

from __future__ import annotations

import asyncio
from collections.abc import Iterator, Sequence

from prometheus_client import Metric
from prometheus_client.exposition import choose_encoder
from prometheus_client.registry import Collector
from starlette.types import Receive, Scope, Send

from proxy.auth import Authenticator
from proxy.endpoints import send_bytes
from proxy.errors import Forbidden
from proxy.gauges import Gauges
from proxy.metrics import Metrics
from proxy.siblings import Siblings, merged, read, written

_PATIENCE_S = 2.0
"""Seconds that other workers have. Chosen: they read what is in memory."""


class MetricsPage:
    """Where there are keys, it takes one with `admin: true`, unless it is public.

    It does not matter from which address one comes: behind a proxy on the same machine, the whole
    world comes from loopback. Without keys the port is on loopback only, and nobody needs one.
    """

    def __init__(
        self,
        metrics: Metrics,
        gauges: Gauges,
        auth: Authenticator,
        *,
        is_public: bool,
        siblings: Siblings | None = None,
    ) -> None:
        """`siblings`: the other workers, whose numbers are told too."""
        self._metrics = metrics
        self._gauges = gauges
        self._auth = auth
        self._is_public = is_public
        self._siblings = siblings
        if siblings is not None:
            siblings.tell("metrics", self._told)

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        headers = dict(scope["headers"])
        if not self._is_public and not self._auth.authenticate(headers).is_admin:
            raise Forbidden("only a key with `admin: true` may read /metrics; see `metrics.public`")
        encode, kind = choose_encoder(headers.get(b"accept", b"").decode("latin-1"))
        content = await asyncio.to_thread(encode, _Collected(await self.collect()))
        await send_bytes(send, content, {"content-type": kind})

    async def collect(self) -> Sequence[Metric]:
        """What all workers count, and what is so now; raises Unheard."""
        if self._siblings is None:
            return await self._own()
        told = await self._siblings.ask("metrics", _PATIENCE_S)
        return await asyncio.to_thread(merged, [await self._own(), *map(read, told)])

    async def _told(self) -> bytes:
        return written(await self._own())

    async def _own(self) -> Sequence[Metric]:
        state = self._gauges.read()
        return await asyncio.to_thread(self._with_counters, state)

    def _with_counters(self, state: Sequence[Metric]) -> list[Metric]:
        self._metrics.drain()
        return [*self._metrics.registry.collect(), *state]


class _Collected(Collector):
    """Counters and state as one."""

    def __init__(self, metrics: Sequence[Metric]) -> None:
        self._metrics = metrics

    def collect(self) -> Iterator[Metric]:
        yield from self._metrics
