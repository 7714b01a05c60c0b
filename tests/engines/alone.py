"""An engine's backend in front of one server that is taken as it is: nothing watched or proven.

For tests of what is sent and how answers are read; how servers are used together is tested in
tests/backends/test_replicas.py.
"""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

from proxy.backends import connect, http
from proxy.backends.engine import EngineBackend, Replica
from proxy.backends.settings import TgiSettings, VllmSettings
from proxy.backends.vocabulary import Vocabulary


class OneReplica:
    """A pool of one server with places for all."""

    def __init__(self, url: str) -> None:
        self._replica = Replica(url.partition("//")[2], url)

    @asynccontextmanager
    async def lease(
        self, *, adapter: str | None, prefix: str, tokens: int
    ) -> AsyncIterator[Replica]:
        yield self._replica

    async def ready(self) -> bool:
        return True

    async def aclose(self) -> None:
        pass


def alone(settings: TgiSettings | VllmSettings, vocabulary: Vocabulary) -> EngineBackend:
    """The backend of the first server that the settings name; needs a running loop."""
    session = http.Session(settings.connect_s, settings.api_key)
    pool = OneReplica(settings.replicas[0])
    return connect.backend("local", settings, vocabulary, pool, session)
