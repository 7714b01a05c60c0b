"""Which servers a list of URLs stands for: a name that resolves to many addresses is many.

http://tgi-a:8080          one address    asked by its name
http://tgi-headless:8080   three          http://10.0.0.7:8080, …, each a replica
https://tgi:8443           any number     asked by its name: certificates are made out to names
"""

from __future__ import annotations

import asyncio
import ipaddress
import socket
from collections.abc import Awaitable, Callable, Sequence
from typing import NamedTuple, TypeAlias
from urllib.parse import SplitResult, urlsplit

import structlog

from proxy.backends.engine import Replica

log = structlog.get_logger(__name__)

Resolve: TypeAlias = Callable[[str, int], Awaitable[list[str]]]
"""Host and port → IP addresses; raises OSError."""

MOST = 256
"""Addresses of one name that are used. Chosen: far above any one pool."""
_TIMEOUT = 5.0
"""Seconds for a name to be resolved."""


class Found(NamedTuple):
    """A replica, and the address that it has now: another address is another server."""

    replica: Replica
    address: str


async def resolve(host: str, port: int) -> list[str]:
    """The addresses of a name, of one family: what has both is still one server."""
    loop = asyncio.get_running_loop()
    found = await loop.getaddrinfo(host, port, type=socket.SOCK_STREAM)
    families = sorted({family for family, *_ in found}, key=lambda f: f != socket.AF_INET)
    return sorted({str(address[0]) for family, *_, address in found if family == families[0]})


class Addresses:
    """The servers behind some URLs, as they were resolved last."""

    def __init__(self, urls: Sequence[str], resolve: Resolve = resolve) -> None:
        self._behind: dict[str, list[Found]] = {url: [] for url in urls}
        self._resolve = resolve

    async def find(self) -> list[Found]:
        """Resolve again; a name that cannot be resolved now keeps the addresses that it had."""
        for url, had in self._behind.items():
            self._behind[url] = await _behind(urlsplit(url), self._resolve) or had
        everything = (one for found in self._behind.values() for one in found)
        return list({one.replica.url: one for one in everything}.values())


async def _behind(url: SplitResult, resolve: Resolve) -> list[Found]:
    host, port = url.hostname or "", url.port or (443 if url.scheme == "https" else 80)
    if _is_address(host):
        return [Found(Replica(url.netloc, url.geturl()), host)]
    try:
        async with asyncio.timeout(_TIMEOUT):
            addresses = (await resolve(host, port))[:MOST]
    except (OSError, TimeoutError) as error:
        log.warning("replica_name_not_resolved", host=host, reason=type(error).__name__)
        return []
    if url.scheme == "https" or len(addresses) == 1:
        return [Found(Replica(url.netloc, url.geturl()), " ".join(addresses))]
    return [_at(address, port) for address in addresses]


def _at(address: str, port: int) -> Found:
    place = f"[{address}]:{port}" if ":" in address else f"{address}:{port}"
    return Found(Replica(place, f"http://{place}"), address)


def _is_address(host: str) -> bool:
    try:
        ipaddress.ip_address(host)
    except ValueError:
        return False
    return True
