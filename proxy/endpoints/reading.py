"""The body of a request: read whole and unpacked, or piece by piece as it comes."""

from __future__ import annotations

import asyncio
import io
import zlib
from collections.abc import AsyncIterator, Callable, Mapping

import zstandard
from starlette.types import Receive

from proxy.endpoints import ClientGone
from proxy.errors import (
    BadRequest,
    ProxyError,
    RequestTimeout,
    TooLarge,
    UnsupportedMediaType,
)

_GZIP = 16 + zlib.MAX_WBITS
_MAX_WINDOW = 8 * 1024 * 1024
"""Bytes of memory that a zstd frame may ask for: RFC 8878, 3.1.1.1.2, recommends 8 MiB."""


def is_json(headers: Mapping[bytes, bytes]) -> bool:
    """Whether the request says that its body is JSON."""
    return _content_type(headers) == b"application/json"


async def read_json(headers: Mapping[bytes, bytes], receive: Receive, limit: int) -> bytes:
    """The request's body, of what says it is JSON: unpacked, and then at most `limit` bytes.

    Raises TooLarge, as soon as that is known, UnsupportedMediaType, BadRequest for what cannot be
    unpacked, and ClientGone.
    """
    if not is_json(headers):
        said = _content_type(headers).decode("latin-1")
        raise UnsupportedMediaType(
            "the body must be application/json, the request says "
            + (repr(said[:64]) if said else "no content-type")
        )
    unpack = _unpacker(headers)
    body = await _read(headers, receive, limit)
    if unpack is None:
        return body
    # In a thread: the loop is everybody's, and a body that unpacks to `limit` takes its time.
    return await asyncio.to_thread(unpack, body, limit)


async def _read(headers: Mapping[bytes, bytes], receive: Receive, limit: int) -> bytes:
    check_size(int(headers.get(b"content-length", b"0")), limit)
    message = await receive()
    if message["type"] == "http.request" and not message.get("more_body"):
        check_size(len(message["body"]), limit)
        return bytes(message["body"])
    body = bytearray()
    while message["type"] == "http.request":
        body += message.get("body", b"")
        check_size(len(body), limit)
        if not message.get("more_body"):
            return bytes(body)
        message = await receive()
    raise ClientGone


def check_size(size: int, limit: int) -> None:
    """Raise TooLarge for a body that is to be held."""
    if size > limit:
        raise TooLarge(f"the body is larger than {limit} bytes (limits.max_body_mib)")


def check_upload(size: int, limit: int) -> None:
    """Raise TooLarge for a body that is to be passed on."""
    if size > limit:
        raise TooLarge(f"the body is larger than {limit} bytes (limits.max_upload_mib)")


def _content_type(headers: Mapping[bytes, bytes]) -> bytes:
    return headers.get(b"content-type", b"").partition(b";")[0].strip().lower()


# ---------------------------------------------------------------- unpacking


def _unpacker(headers: Mapping[bytes, bytes]) -> Callable[[bytes, int], bytes] | None:
    encoding = headers.get(b"content-encoding", b"identity").strip().lower()
    if encoding in (b"identity", b""):
        return None
    try:
        return _UNPACKERS[encoding]
    except KeyError:
        said = encoding[:64].decode("latin-1")
        raise UnsupportedMediaType(
            f"content-encoding {said!r} is not read here; send gzip, zstd or plain"
        ) from None


def _gunzip(body: bytes, limit: int) -> bytes:
    """One gzip member: a second one, which RFC 1952 allows, no client sends."""
    member = zlib.decompressobj(_GZIP)
    try:
        unpacked = member.decompress(body, limit + 1)
    except zlib.error:
        raise BadRequest("the body is not gzip, as its content-encoding says") from None
    check_size(len(unpacked), limit)
    if not member.eof or member.unused_data:
        raise BadRequest("the gzip body ends too early, or has something after its end")
    return unpacked


def _unzstd(body: bytes, limit: int) -> bytes:
    unpacker = zstandard.ZstdDecompressor(max_window_size=_MAX_WINDOW)
    try:
        with unpacker.stream_reader(io.BytesIO(body), read_across_frames=True) as reader:
            unpacked = reader.read(limit + 1)
    except zstandard.ZstdError:
        raise BadRequest("the body is not zstd, as its content-encoding says") from None
    check_size(len(unpacked), limit)
    return unpacked


_UNPACKERS = {b"gzip": _gunzip, b"x-gzip": _gunzip, b"zstd": _unzstd}


# ---------------------------------------------------------------- streaming


BEGIN = 64 * 1024
"""Bytes at the beginning of an upload that may be looked at. Chosen: clients send the short fields
of a form first, and those fit."""


class Upload:
    """A body that is passed on as it comes; iterate once.

    What goes wrong while it is read is kept in `failure`: whoever sends the body on sees no more
    than that it broke off.
    """

    def __init__(self, receive: Receive, limit: int, silence_s: float) -> None:
        """`limit`: bytes; `silence_s`: seconds to wait for the next piece."""
        self.failure: ProxyError | ClientGone | None = None
        self.ended = asyncio.Event()
        """No more will be read: from now on, `receive` tells of the client leaving."""
        self._receive = receive
        self._limit = limit
        self._silence_s = silence_s
        self._size = 0
        self._held = b""
        self._more = True

    async def begin(self) -> bytes:
        """The first BEGIN bytes or more, where there are so many; they will be given again."""
        while self._more and len(self._held) < BEGIN:
            self._held += await self._next()
        return self._held

    def prepend(self, opening: bytes) -> None:
        """Send this first."""
        self._held = opening + self._held

    async def __aiter__(self) -> AsyncIterator[bytes]:
        try:
            if self._held:
                yield self._held
            while self._more:
                if piece := await self._next():
                    yield piece
        except (ProxyError, ClientGone) as error:
            self.failure = error
            raise
        finally:
            self.ended.set()

    async def _next(self) -> bytes:
        try:
            async with asyncio.timeout(self._silence_s):
                message = await self._receive()
        except TimeoutError:
            raise RequestTimeout(f"the body stopped coming for {self._silence_s:g} s") from None
        if message["type"] != "http.request":
            raise ClientGone
        piece: bytes = message.get("body", b"")
        self._more = message.get("more_body", False)
        self._size += len(piece)
        check_upload(self._size, self._limit)
        return piece
