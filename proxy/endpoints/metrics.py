"""GET /metrics: what happened, and what is so now, in the forms that Prometheus reads."""

from __future__ import annotations

import asyncio
from collections.abc import Iterator, Sequence

from prometheus_client import CollectorRegistry, Metric
from prometheus_client.exposition import choose_encoder
from prometheus_client.registry import Collector
from starlette.types import Receive, Scope, Send

from proxy.auth import Authenticator
from proxy.endpoints import send_bytes
from proxy.errors import Forbidden
from proxy.gauges import Gauges
from proxy.metrics import Metrics


class MetricsPage:
    """Where there are keys, it takes one with `admin: true`, unless it is public.

    It does not matter from which address one comes: behind a proxy on the same machine, the whole
    world comes from loopback. Without keys the port is on loopback only, and nobody needs one.
    """

    def __init__(
        self, metrics: Metrics, gauges: Gauges, auth: Authenticator, *, is_public: bool
    ) -> None:
        self._metrics = metrics
        self._gauges = gauges
        self._auth = auth
        self._is_public = is_public

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        headers = dict(scope["headers"])
        if not self._is_public and not self._auth.authenticate(headers).is_admin:
            raise Forbidden("only a key with `admin: true` may read /metrics; see `metrics.public`")
        accepted = headers.get(b"accept", b"").decode("latin-1")
        content, kind = await asyncio.to_thread(self._page, self._gauges.read(), accepted)
        await send_bytes(send, content, {"content-type": kind})

    def _page(self, state: Sequence[Metric], accepted: str) -> tuple[bytes, str]:
        self._metrics.drain()
        encode, kind = choose_encoder(accepted)
        return encode(_All(self._metrics.registry, state)), kind


class _All(Collector):
    """Counters and state as one."""

    def __init__(self, registry: CollectorRegistry, state: Sequence[Metric]) -> None:
        self._registry = registry
        self._state = state

    def collect(self) -> Iterator[Metric]:
        yield from self._registry.collect()
        yield from self._state
