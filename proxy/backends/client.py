"""The way to servers over HTTP: a lean client's where that does, a full one's where it does not.

Both give the same answers and the same errors: ConnectTimedOut, other TimeoutErrors after silence,
and Broken for all else. The full client, aiohttp, is for TLS and for uploads; it costs a worker
7 MiB and a tenth of a second, so that it is loaded where it is made.
"""

from __future__ import annotations

from collections.abc import AsyncIterator, Awaitable, Mapping
from typing import TYPE_CHECKING, Protocol, Self, TypeAlias

from proxy.backends.plain_http import KEPT_S, PlainClient

if TYPE_CHECKING:
    from proxy.backends.full_http import FullClient

Body: TypeAlias = bytes | AsyncIterator[bytes] | None
"""What is sent: whole, as it comes, or nothing."""


class Answer(Protocol):
    """An answer that is still coming; its body is iterated once, as it comes.

    Raises TimeoutError after silence, and Broken.
    """

    @property
    def status(self) -> int: ...

    @property
    def headers(self) -> Mapping[str, str]:
        """Lower-case names; of a name that occurs twice, the values with a comma between."""

    @property
    def content_type(self) -> str:
        """Without its parameters; what the standard assumes where it is missing."""

    @property
    def waiting(self) -> bytes | None:
        """All of the body that was not read yet, where it is known to be all; else None."""

    def __aiter__(self) -> Self: ...

    async def __anext__(self) -> bytes: ...

    def close(self) -> None:
        """Break the connection if the answer is not over."""


class Client:
    """Connections to servers, kept between requests. Needs a running loop when it is used."""

    def __init__(
        self,
        connect_s: float,
        max_connections: int,
        *,
        for_tls: bool = False,
        tls_kept_s: float = KEPT_S,
    ) -> None:
        """`connect_s`: seconds for a connection to stand, and again for one to be free; `for_tls`:
        load what it takes now; `tls_kept_s`: seconds for which idle connections of TLS are kept."""
        self._connect_s = connect_s
        self._max_connections = max_connections
        self._tls_kept_s = tls_kept_s
        self._plain = PlainClient(connect_s, max_connections)
        self._full = self._made_full() if for_tls else None

    def request(
        self, method: str, url: str, body: Body, headers: Mapping[str, str], silence_s: float | None
    ) -> Awaitable[Answer]:
        """The answer to a request, as soon as its head is there; close it in any case.

        `url` is percent-encoded; `silence_s` bounds each wait, for the head and between pieces.
        Raises ConnectTimedOut and other TimeoutErrors, and Broken.
        """
        if url.startswith("http://") and (body is None or isinstance(body, bytes)):
            return self._plain.request(method, url, body, headers, silence_s)
        if self._full is None:
            self._full = self._made_full()
        return self._full.request(method, url, body, headers, silence_s)

    async def close(self) -> None:
        """Close all connections."""
        self._plain.close()
        if self._full is not None:
            await self._full.close()

    def _made_full(self) -> FullClient:
        from proxy.backends.full_http import FullClient

        return FullClient(self._connect_s, self._max_connections, self._tls_kept_s)
