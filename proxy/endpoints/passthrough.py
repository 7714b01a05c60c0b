"""Everything else below /v1: files, batches, audio, images, fine-tuning … passed on to a cloud.

Bodies go through as they come, in both directions. Of the request's headers only those go on that
say what the body is or what is wanted; keys, cookies and our own never do, and neither do those
that concern one connection.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from functools import partial
from urllib.parse import unquote

from msgspec.structs import replace
from starlette.types import Receive, Scope, Send

from proxy.account import check_body, check_path
from proxy.auth import Authenticator, Caller
from proxy.backends.base import Forward
from proxy.endpoints import ClientGone, caller_of, send_answer, while_connected
from proxy.endpoints.reading import Upload, check_upload, is_json, read_json
from proxy.errors import (
    BadRequest,
    Forbidden,
    MethodNotAllowed,
    NotFound,
    ProxyError,
    Unsupported,
    UnsupportedMediaType,
)
from proxy.gateway import Inbound
from proxy.limits import LimitSettings
from proxy.passage import Passage
from proxy.protocol.openai import MalformedRequest, parse_object
from proxy.rename import with_model

_METHODS = ("GET", "HEAD", "POST", "PUT", "PATCH", "DELETE")
_FORWARDED = re.compile(rb"accept|content-type|content-encoding|idempotency-key|openai-beta|range")
_VISIBLE = re.compile(r"[!-~]*")
_MULTIPART = re.compile(rb"multipart/form-data\s*;.*boundary=\"?([^\";,\s]+)", re.IGNORECASE)
_UNSAFE = re.compile(r"[/\\\x00-\x1f\x7f]")
_DECODED = 8
"""How often a segment may have been encoded. Chosen: nobody does it more than twice."""
_MIB = 1024 * 1024


class PassThrough:
    """Raw ASGI endpoint for any method and path below /v1 that no other endpoint serves."""

    def __init__(self, passage: Passage, auth: Authenticator, limits: LimitSettings) -> None:
        self._passage = passage
        self._auth = auth
        self._max_body = int(limits.max_body_mib * _MIB)
        self._max_upload = int(limits.max_upload_mib * _MIB)
        self._silence_s = limits.deadline_s

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        headers = scope["state"]["headers"]
        caller = caller_of(scope, self._auth)
        inbound = Inbound(caller, headers, b"", scope["state"]["facts"])
        _check(scope["method"], headers)
        target = _target(scope)
        _check_caller(caller, scope["method"], target)
        forward = Forward(
            method=scope["method"], target=target, headers=_forwarded(headers), body=None
        )
        deployment = scope["state"].get("deployment")
        try:
            if is_json(headers) and (deployment is not None or not caller.has_account):
                body = await read_json(headers, receive, self._max_body)
                _check_json(caller, body)
                forward = _with_body(forward, body, deployment)
            elif _has_body(headers):
                _check_form(caller, headers)
                await self._upload(inbound, forward, deployment, receive, send)
                return
            await while_connected(self._answer(inbound, forward, send), receive)
        except ClientGone:
            inbound.facts.outcome = "client_aborted"

    async def _upload(
        self,
        inbound: Inbound,
        forward: Forward,
        deployment: str | None,
        receive: Receive,
        send: Send,
    ) -> None:
        check_upload(int(inbound.headers.get(b"content-length", b"0")), self._max_upload)
        upload = Upload(receive, self._max_upload, self._silence_s)
        field = b""
        if deployment is not None:
            field = _model_field(inbound.headers, deployment, await upload.begin())
            upload.prepend(field)
        length = _length(inbound.headers, len(field))
        forward = replace(forward, body=aiter(upload), headers={**forward.headers, **length})
        try:
            await while_connected(self._answer(inbound, forward, send), receive, upload.ended)
        except ProxyError as error:
            # What the cloud's connection says of a body that broke off is not the cause.
            raise upload.failure or error from None

    async def _answer(self, inbound: Inbound, forward: Forward, send: Send) -> None:
        await self._passage.anything(inbound, forward, partial(send_answer, send))


def _check(method: str, headers: Mapping[bytes, bytes]) -> None:
    if method not in _METHODS:
        raise MethodNotAllowed(f"{method[:32]} is not allowed here; use {', '.join(_METHODS)}")
    if b"upgrade" in headers:
        raise Unsupported(
            "connections are not upgraded here: WebSockets must go to the cloud itself"
        )


def _check_caller(caller: Caller, method: str, target: str) -> None:
    check_path(caller, method, target.partition("?")[0])
    if caller.models is not None:
        raise Forbidden("a key with `models` may not use what names its model where we do not read")


def _check_json(caller: Caller, body: bytes) -> None:
    if caller.has_account:
        return
    try:
        # A key that is there twice is one for us, and perhaps the other one for the cloud.
        parse_object(body)
    except MalformedRequest as error:
        raise BadRequest(str(error), error.param) from error
    check_body(caller, body)


def _check_form(caller: Caller, headers: Mapping[bytes, bytes]) -> None:
    """What is neither JSON nor a form is passed on for the account's tenants alone: who knows what
    it refers to?"""
    if not caller.has_account and _MULTIPART.match(headers.get(b"content-type", b"")) is None:
        raise UnsupportedMediaType("the body must be application/json or multipart/form-data")


def _has_body(headers: Mapping[bytes, bytes]) -> bool:
    return b"transfer-encoding" in headers or headers.get(b"content-length", b"0") != b"0"


def _forwarded(headers: Mapping[bytes, bytes]) -> dict[str, str]:
    return {
        name.decode("latin-1"): value.decode("latin-1")
        for name, value in headers.items()
        if _FORWARDED.fullmatch(name)
    }


# ---------------------------------------------------------------- where to


def _target(scope: Scope) -> str:
    """The path below /v1 with its query, as they came; raises NotFound for one that climbs."""
    path: str = scope["raw_path"].decode("latin-1").rstrip("/")
    query = scope["query_string"].decode("latin-1")
    if not path.startswith("/v1/") or not all(map(_is_sane, path[len("/v1/") :].split("/"))):
        raise NotFound("there is nothing at this path")
    if not _VISIBLE.fullmatch(path + query):
        raise BadRequest("the URL holds what must be percent-encoded")
    return path.removeprefix("/v1") + (f"?{query}" if query else "")


def _is_sane(segment: str) -> bool:
    """Whether a server behind, however often it decodes, finds one plain segment in this."""
    for _ in range(_DECODED):
        decoded = unquote(segment)
        if decoded == segment:
            break
        segment = decoded
    else:
        return False
    begin = segment.partition(";")[0].strip()
    return begin not in ("", ".", "..") and not _UNSAFE.search(segment)


# ---------------------------------------------------------------- Azure's deployments


def _with_body(forward: Forward, body: bytes, model: str | None) -> Forward:
    """The request with a body that was unpacked, and with its deployment's name, if it has one."""
    headers = {n: v for n, v in forward.headers.items() if n != "content-encoding"}
    named = body if model is None else with_model(body, model)
    return replace(forward, headers=headers, body=named, model=model)


def _model_field(headers: Mapping[bytes, bytes], model: str, begin: bytes) -> bytes:
    """The form field that names the model, where the body is a form that does not begin with it."""
    form = _MULTIPART.match(headers.get(b"content-type", b""))
    if form is None or b'name="model"' in begin:
        return b""
    head = b"--" + form[1] + b'\r\ncontent-disposition: form-data; name="model"\r\n\r\n'
    return head + model.encode() + b"\r\n"


def _length(headers: Mapping[bytes, bytes], more: int) -> dict[str, str]:
    """The header that says how long the body is with so many bytes more, if it is known."""
    known = headers.get(b"content-length")
    return {} if known is None else {"content-length": str(int(known) + more)}
