"""The dashboard's addresses: who may open each, and the headers of what is answered."""

from __future__ import annotations

import secrets
from collections.abc import Awaitable, Callable, Mapping
from typing import TypeAlias
from urllib.parse import parse_qsl, urlencode

import msgspec
from starlette.types import Receive, Scope, Send

from proxy.auth import Authenticator
from proxy.backends.settings import CloudSettings
from proxy.catalog import Catalog
from proxy.config import Config
from proxy.dashboard import corrections
from proxy.dashboard.corrections import BadCorrection
from proxy.dashboard.entrance import HOME, Entrance, Visitor, redirect
from proxy.dashboard.frame import PRIVATE, Frame, send_page
from proxy.dashboard.live import Collect, Lookout
from proxy.dashboard.pages import Pages, Query, Shown
from proxy.dashboard.reading import Reading
from proxy.dashboard.session import Seal
from proxy.dashboard.static_files import StaticFiles
from proxy.endpoints import feedback, send_bytes
from proxy.errors import BadRequest, MethodNotAllowed, NotFound, ProxyError
from proxy.protocol.redact import own_key
from proxy.recorder import Recorder

Page: TypeAlias = Callable[[Visitor, str, Query], Awaitable[Shown]]
_STATIC = "static/"
_FIELDS = 30


class Dashboard:
    """Pages for operators, as one ASGI app. Made once; `run` it beside, for the live chart."""

    def __init__(
        self,
        config: Config,
        catalog: Catalog,
        auth: Authenticator,
        recorder: Recorder | None,
        collect: Collect,
    ) -> None:
        """`collect`: what /metrics tells, of all workers."""
        local = [n for n, one in config.backends.items() if not isinstance(one, CloudSettings)]
        self._recorder = recorder
        self._reading = Reading(config, local)
        self._lookout = Lookout(collect)
        self._files = StaticFiles()
        self._frame = Frame(self._files.stamps)
        self._pages = Pages(config, catalog, self._lookout, self._reading, self._frame)
        seal, hours = Seal(_secret(config)), config.dashboard.session_hours
        self._entrance = Entrance(auth, seal, hours, self._frame)
        self._shown: Mapping[str, Page] = {
            "": self._pages.overview,
            "live": self._pages.live,
            "traffic": self._pages.traffic,
            "savings": self._pages.savings,
            "agreement": self._pages.agreement,
            "adapters": self._pages.adapters,
            "runs": self._pages.runs,
            "run": self._pages.run,
            "exchanges": self._pages.exchanges,
            "exchange": self._pages.exchange,
        }

    async def run(self) -> None:
        """Watch the counters until cancelled."""
        await self._lookout.run()

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        try:
            await self._answer(scope, receive, send)
        except ProxyError as error:
            page = self._frame.page("error.html.jinja", error=error)
            await send_page(send, page, error.status, error.headers)

    async def _answer(self, scope: Scope, receive: Receive, send: Send) -> None:
        name = scope["path"].removeprefix(HOME).strip("/")
        match scope["method"], name:
            case "GET", _ if name.startswith(_STATIC):
                await self._files.send(send, name.removeprefix(_STATIC))
            case "GET", "login":
                await self._entrance.show(scope, send)
            case "POST", "login":
                await self._entrance.log_in(scope, receive, send)
            case "POST", "logout":
                await self._entrance.log_out(scope, receive, send)
            case _:
                await self._for_operators(scope, receive, send, name)

    async def _for_operators(self, scope: Scope, receive: Receive, send: Send, name: str) -> None:
        visitor = self._entrance.visitor(scope)
        if visitor is None:
            await _to_login(scope, send)
            return
        match scope["method"], name:
            case "GET", "live.json":
                await self._send_live(send)
            case "GET", _ if name in self._shown:
                token = self._entrance.token(visitor)
                shown = await self._shown[name](visitor, token, _query(scope))
                await send_page(send, shown.content, shown.status)
            case "POST", "feedback":
                await self._take(scope, receive, send, visitor)
            case "GET", _:
                raise NotFound("There is no such page.")
            case _:
                raise MethodNotAllowed("This page is to be read, and not written to.")

    async def _send_live(self, send: Send) -> None:
        told = {
            "now": await self._lookout.live(),
            "history": await self._lookout.history(),
        }
        content = msgspec.json.encode(told)
        await send_bytes(send, content, {"content-type": "application/json", **PRIVATE})

    async def _take(self, scope: Scope, receive: Receive, send: Send, visitor: Visitor) -> None:
        """Take feedback on an exchange; the form again, with the reason, where it is none."""
        form = await self._entrance.form(scope, receive, visitor)
        recorder = feedback.recorder_of(self._recorder)
        seen = await self._pages.seen(form)
        try:
            given = corrections.parse(form, seen, visitor.caller)
        except BadCorrection as error:
            token = self._entrance.token(visitor)
            page = self._pages.judged(
                visitor, token, seen, problem=error.message, form=form, status=400
            )
            await send_page(send, page.content, page.status)
            return
        await feedback.keep(given, recorder)
        self._reading.forget()
        named = {"id": seen.id, "tenant": seen.tenant, "given": given.id}
        await redirect(send, f"{HOME}/exchange?{urlencode(named)}")


async def _to_login(scope: Scope, send: Send) -> None:
    """Where the browser should go; htmx, which only replaces a part of the page, is told apart."""
    if b"hx-request" in dict(scope["headers"]):
        await send_page(send, b"", 401, {"hx-redirect": f"{HOME}/login"})
        return
    await redirect(send, f"{HOME}/login")


def _query(scope: Scope) -> Query:
    try:
        text = scope["query_string"].decode()
        return dict(parse_qsl(text, max_num_fields=_FIELDS))
    except ValueError as error:
        raise BadRequest("The address cannot be read.") from error


def _secret(config: Config) -> bytes:
    """What sessions are signed with; the same for all processes of a record."""
    if config.dashboard.secret is not None:
        return config.dashboard.secret.encode()
    if config.record is not None and config.record.directory.is_dir():
        try:
            return own_key(config.record.directory)
        except OSError:
            # A record that cannot be written to keeps nobody from looking.
            pass
    return secrets.token_bytes(32)
