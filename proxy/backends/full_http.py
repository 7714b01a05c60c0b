"""aiohttp, with the lean client's answers and errors: for TLS, and bodies that come piecemeal."""

from __future__ import annotations

from collections.abc import AsyncIterator, Mapping
from typing import Self

import aiohttp
from yarl import URL

from proxy.backends.plain_http import Broken, ConnectTimedOut

_FAILURES = (aiohttp.ClientError, OSError, UnicodeError)
"""UnicodeError: of a name that can be no host's."""


class FullAnswer:
    """See client.Answer."""

    def __init__(self, response: aiohttp.ClientResponse) -> None:
        self.status = response.status
        self.headers = _joined(response)
        self._response = response
        self._pieces = response.content.iter_any()

    @property
    def content_type(self) -> str:
        return self._response.content_type

    @property
    def waiting(self) -> bytes | None:
        return None

    def __aiter__(self) -> Self:
        return self

    async def __anext__(self) -> bytes:
        try:
            return await anext(self._pieces)
        except _FAILURES as error:
            raise _ours(error) from error

    def close(self) -> None:
        self._response.close()


class FullClient:
    """Connections to any number of servers. Made once; needs a running loop when it is used."""

    def __init__(self, connect_s: float, max_connections: int, kept_s: float) -> None:
        """See client.Client."""
        self._connect_s = connect_s
        self._kept_s = kept_s
        self._max_connections = max_connections
        self._session: aiohttp.ClientSession | None = None

    async def request(
        self,
        method: str,
        url: str,
        body: bytes | AsyncIterator[bytes] | None,
        headers: Mapping[str, str],
        silence_s: float | None,
    ) -> FullAnswer:
        """See client.Client."""
        try:
            response = await self._opened().request(
                method,
                # Encoded already: decoding and encoding it anew could make another URL of it.
                URL(url, encoded=True),
                data=body,
                headers=headers,
                timeout=self._timeout(silence_s),
                allow_redirects=False,
                skip_auto_headers=("content-type",),
            )
        except _FAILURES as error:
            raise _ours(error) from error
        return FullAnswer(response)

    async def close(self) -> None:
        """Close all connections."""
        if self._session is not None:
            await self._session.close()

    def _opened(self) -> aiohttp.ClientSession:
        # Made at the first request, since it binds to the loop that runs then.
        if self._session is None:
            self._session = aiohttp.ClientSession(
                connector=aiohttp.TCPConnector(
                    limit=self._max_connections, keepalive_timeout=self._kept_s
                ),
                cookie_jar=aiohttp.DummyCookieJar(),
            )
        return self._session

    def _timeout(self, silence_s: float | None) -> aiohttp.ClientTimeout:
        # aiohttp gives up on the whole exchange after 300 s unless told otherwise; a long answer is
        # not an error, a silent server is. `connect` also counts the wait for a free connection.
        connect_s = self._connect_s
        return aiohttp.ClientTimeout(
            total=None, connect=2 * connect_s, sock_connect=connect_s, sock_read=silence_s
        )


def _joined(response: aiohttp.ClientResponse) -> dict[str, str]:
    headers: dict[str, str] = {}
    for name, value in response.headers.items():
        name = name.lower()
        headers[name] = f"{headers[name]}, {value}" if name in headers else value
    return headers


def _ours(error: Exception) -> Exception:
    # Its text may hold the URL and header values; its type says enough.
    match error:
        case aiohttp.ConnectionTimeoutError():
            return ConnectTimedOut("no connection stood in time")
        case TimeoutError():
            return TimeoutError("the server went silent")
        case _:
            return Broken(type(error).__name__)
