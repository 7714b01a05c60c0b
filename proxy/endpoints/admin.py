"""What operators ask of a running proxy: POST /admin/reload, POST /admin/explain."""

from __future__ import annotations

from collections.abc import Awaitable, Callable

from starlette.types import Receive, Scope, Send

from proxy.auth import Authenticator
from proxy.catalog import Catalog
from proxy.endpoints import ClientGone, caller_of, send_json
from proxy.endpoints.reading import read_json
from proxy.errors import Forbidden, NotFound
from proxy.explain import Step, explain
from proxy.gateway import parse
from proxy.protocol.openai import ChatRequest
from proxy.reload import Reloaded
from proxy.routing import Routes

TENANT = b"x-headrace-tenant"
"""Request header that names the tenant whose request is explained. Default: the operator's own."""


def check_operator(scope: Scope, auth: Authenticator) -> str:
    """The tenant of an operator; raises Unauthenticated, and Forbidden for everybody else."""
    caller = caller_of(scope, auth)
    if not caller.is_admin:
        raise Forbidden("this takes a key with `admin: true`")
    return caller.tenant


class Reload:
    """Reads routes.yaml anew: 200 when it is in use, 409 with the reason when it is not."""

    def __init__(
        self, auth: Authenticator, reload: Callable[[], Awaitable[Reloaded]] | None
    ) -> None:
        self._auth = auth
        self._reload = reload

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        check_operator(scope, self._auth)
        if self._reload is None:
            raise NotFound("this server was not started from a file")
        told = await self._reload()
        await send_json(send, told, 200 if told.problem is None else 409)


class Explain:
    """Where the request in the body would go, and why; nobody is asked."""

    def __init__(
        self, auth: Authenticator, routes: Routes, catalog: Catalog, max_body: int
    ) -> None:
        self._auth = auth
        self._routes = routes
        self._catalog = catalog
        self._max_body = max_body

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        own = check_operator(scope, self._auth)
        headers = dict(scope["headers"])
        tenant = headers.get(TENANT, own.encode()).decode("latin-1")
        try:
            request = parse(await read_json(headers, receive, self._max_body))
        except ClientGone:
            return
        ready = {name: await one.ready() for name, one in self._catalog.backends.items()}

        def step(backend: str, domain: str) -> Step:
            return self._step(request, backend, domain, ready[backend])

        await send_json(send, explain(self._routes, tenant, request, headers, step))

    def _step(self, request: ChatRequest, backend: str, domain: str, ready: bool) -> Step:
        champion = self._catalog.champion(backend, domain)
        lacks = self._catalog.backends[backend].lacks(request)
        return Step(backend, None if champion is None else champion.id, lacks, ready)
