"""Who may open the dashboard: whoever may read /metrics. A browser logs in with an admin's key.

    no keys in routes.yaml     everybody on this machine, by a name of this machine
    a session's cookie         who logged in, for as long as that key is an admin's
    `authorization` header     an admin's key or token, as everywhere: from a proxy with a log-in of
                               its own, or a script

Forms carry a token that belongs to the visitor, whichever of these they are.
"""

from __future__ import annotations

import hmac
import secrets
from collections.abc import Mapping
from http.cookies import CookieError, SimpleCookie
from typing import NamedTuple
from urllib.parse import SplitResult, parse_qsl, urlsplit

from starlette.types import Receive, Scope, Send

from proxy.auth import ANONYMOUS, Authenticator, Caller, is_loopback
from proxy.dashboard.frame import PRIVATE, Frame, send_page
from proxy.dashboard.session import WINDOW_S, Seal, Session, Tries
from proxy.endpoints import send_bytes
from proxy.endpoints.reading import check_size
from proxy.errors import BadRequest, Forbidden
from proxy.keys.base import digest

HOME = "/dashboard"
SESSION = "headrace_session"
_LOGIN = "headrace_login"
"""Cookie of the form to log in, to which its token belongs: there is no session yet."""
_LARGEST = 256 * 1024
"""Bytes of a form. Chosen: a correction is one answer."""
_FIELDS = 20

Form = Mapping[str, str]


class Visitor(NamedTuple):
    """Somebody who may see the pages."""

    caller: Caller
    identity: str
    """What the token of forms belongs to."""
    can_leave: bool
    """Whether there is a session to end."""


class Entrance:
    """Lets operators in."""

    def __init__(self, auth: Authenticator, seal: Seal, session_hours: float, frame: Frame) -> None:
        self._auth = auth
        self._frame = frame
        self._seal = seal
        self._hours = session_hours
        self._tries = Tries()

    def visitor(self, scope: Scope) -> Visitor | None:
        """Who is there; None where they should log in. Raises Unauthenticated and Forbidden."""
        headers = dict(scope["headers"])
        found = self._found(headers)
        if found is not None:
            facts = scope["state"]["facts"]
            facts.tenant, facts.caller = found.caller.tenant, found.caller.name
        return found

    def _found(self, headers: Mapping[bytes, bytes]) -> Visitor | None:
        if self._auth.is_open:
            _check_name(headers)
            return Visitor(ANONYMOUS, "open", can_leave=False)
        if b"authorization" in headers or b"api-key" in headers:
            caller = self._auth.authenticate(headers)
            if not caller.is_admin:
                raise Forbidden("The dashboard takes a key with `admin: true`.")
            return Visitor(caller, f"header {caller.tenant} {caller.name}", can_leave=False)
        session = self._seal.opened(_cookie(headers, SESSION))
        admin = None if session is None else self._admin(session)
        if session is None or admin is None:
            return None
        return Visitor(admin, f"session {session.id}", can_leave=True)

    def _admin(self, session: Session) -> Caller | None:
        """Who began the session, if the key still is an admin's."""
        found = self._auth.holder(lambda digest: self._seal.name(digest) == session.key)
        return found if found is not None and found.is_admin else None

    def token(self, visitor: Visitor) -> str:
        """What this visitor's forms carry."""
        return self._seal.token(visitor.identity)

    async def form(self, scope: Scope, receive: Receive, visitor: Visitor) -> Form:
        """The fields of a form that this visitor sent; raises Forbidden for one that is not ours,
        BadRequest and TooLarge."""
        return await self._form(scope, receive, visitor.identity)

    async def _form(self, scope: Scope, receive: Receive, identity: str) -> Form:
        headers = dict(scope["headers"])
        _check_origin(headers)
        fields = _fields(await _body(receive))
        if not self._seal.is_token(fields.get("token", ""), identity):
            raise Forbidden("This form is too old, or not ours. Open the page again and repeat it.")
        return fields

    # ------------------------------------------------------------ logging in and out

    async def show(self, scope: Scope, send: Send, told: str = "", status: int = 200) -> None:
        """The form to log in."""
        nonce = secrets.token_urlsafe(16)
        token = self._seal.token(f"login {nonce}")
        page = self._frame.page("login.html.jinja", token=token, told=told)
        cookie = _set(_LOGIN, nonce, 60 * 60, scope)
        headers = {"set-cookie": cookie} | ({"retry-after": str(WINDOW_S)} if status == 429 else {})
        await send_page(send, page, status, headers)

    async def log_in(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Begin a session with the key in the form; the form again where it is no admin's."""
        nonce = _cookie(dict(scope["headers"]), _LOGIN)
        fields = await self._form(scope, receive, f"login {nonce}")
        address = (scope.get("client") or ("",))[0]
        if not self._tries.may(address):
            await self.show(scope, send, "Too many wrong keys; wait a minute.", 429)
            return
        given = fields.get("key", "").strip().encode()
        if not self._is_admin(given):
            self._tries.was_wrong(address)
            await self.show(scope, send, "This is no admin's key.", 403)
            return
        cookie = self._seal.begin(digest(given), self._hours)
        await redirect(send, HOME, _set(SESSION, cookie, int(self._hours * 3600), scope))

    def _is_admin(self, key: bytes) -> bool:
        given = digest(key)
        found = self._auth.holder(lambda known: hmac.compare_digest(known, given))
        return found is not None and found.is_admin

    async def log_out(self, scope: Scope, receive: Receive, send: Send) -> None:
        """End the session of this browser."""
        visitor = self.visitor(scope)
        if visitor is not None:
            await self.form(scope, receive, visitor)
        await redirect(send, f"{HOME}/login", _set(SESSION, "", 0, scope))


async def redirect(send: Send, place: str, cookie: str | None = None) -> None:
    """Send the browser there, to GET it."""
    headers = {**PRIVATE, "location": place} | ({"set-cookie": cookie} if cookie else {})
    await send_bytes(send, b"", headers, 303)


def _set(name: str, value: str, seconds: int, scope: Scope) -> str:
    """A cookie for the dashboard alone, that scripts do not see and other sites cannot send."""
    forwarded = dict(scope["headers"]).get(b"x-forwarded-proto", b"")
    secure = "; Secure" if b"https" in (forwarded, scope["scheme"].encode()) else ""
    limits = f"Path={HOME}; Max-Age={seconds}; HttpOnly; SameSite=Strict{secure}"
    return f"{name}={value}; {limits}"


def _cookie(headers: Mapping[bytes, bytes], name: str) -> str:
    jar = SimpleCookie()
    try:
        jar.load(headers.get(b"cookie", b"").decode("latin-1"))
    except CookieError:
        return ""
    return jar[name].value if name in jar else ""


def _check_name(headers: Mapping[bytes, bytes]) -> None:
    """Raise Forbidden unless the request names this machine.

    Where no key is needed, a page from elsewhere could have its own name lead here, and read along.
    """
    host = _split("//" + headers.get(b"host", b"").decode("latin-1")).hostname or ""
    if not is_loopback(host):
        raise Forbidden(
            "Without keys the dashboard answers to localhost and 127.0.0.1 only; add a key with"
            " `admin: true` under auth.keys in routes.yaml."
        )


def _check_origin(headers: Mapping[bytes, bytes]) -> None:
    """Raise Forbidden for a form that another site's page sends."""
    site = headers.get(b"sec-fetch-site", b"").decode("latin-1")
    origin = headers.get(b"origin", b"").decode("latin-1")
    host = headers.get(b"host", b"").decode("latin-1")
    is_ours = site == "same-origin" if site else not origin or _split(origin).netloc == host
    if not is_ours:
        raise Forbidden("This form was sent by a page that is not ours.")


def _split(address: str) -> SplitResult:
    """An address in parts; empty ones where it is none, such as `http://[`."""
    try:
        return urlsplit(address)
    except ValueError:
        return urlsplit("")


async def _body(receive: Receive) -> bytes:
    body, more = bytearray(), True
    while more:
        message = await receive()
        if message["type"] != "http.request":
            raise BadRequest("The form broke off.")
        body += message.get("body", b"")
        check_size(len(body), _LARGEST)
        more = message.get("more_body", False)
    return bytes(body)


def _fields(body: bytes) -> Form:
    try:
        return dict(parse_qsl(body.decode(), keep_blank_values=True, max_num_fields=_FIELDS))
    except ValueError as error:
        raise BadRequest("This is no form.") from error
