"""A look-up in front of the router, which tries one pattern after the other."""

from __future__ import annotations

from collections.abc import Awaitable

from starlette.routing import Route, Router
from starlette.types import ASGIApp, Receive, Scope, Send


class Shortcuts:
    """Pure ASGI: a POST to a path without variables goes to its endpoint at once, all else through
    the router, which also knows what else is allowed there."""

    def __init__(self, router: Router) -> None:
        self._router = router
        self._posted: dict[str, ASGIApp] = {
            route.path: route.app
            for route in router.routes
            if isinstance(route, Route) and _is_posted_to(route)
        }

    def __call__(self, scope: Scope, receive: Receive, send: Send) -> Awaitable[None]:
        is_post = scope["type"] == "http" and scope["method"] == "POST"
        app = self._posted.get(scope["path"], self._router) if is_post else self._router
        return app(scope, receive, send)


def _is_posted_to(route: Route) -> bool:
    return "POST" in (route.methods or ()) and "{" not in route.path
