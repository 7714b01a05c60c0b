"""The API of the cluster that this pod runs in, as far as rolling out adapters needs it.

Asked with the pod's own service account: it needs `get` and `patch` on the deployments in question
and nothing else. Source: Kubernetes API, apps/v1 Deployment; `kubectl rollout status` waits for the
same four numbers.
"""

from __future__ import annotations

import asyncio
import os
import ssl
from collections.abc import AsyncIterator, Mapping
from contextlib import asynccontextmanager
from pathlib import Path
from typing import NamedTuple

import aiohttp
import msgspec

ACCOUNT = Path("/var/run/secrets/kubernetes.io/serviceaccount")
"""Where the cluster puts token and certificate into a pod."""
_MERGE = "application/strategic-merge-patch+json"
_POLL = 2.0
"""Seconds between two looks at a roll-out."""
_ANSWER = aiohttp.ClientTimeout(total=30)


class ClusterError(Exception):
    """The cluster did not do it; the message says what it answered."""


class _Named(msgspec.Struct):
    name: str


class _Pod(msgspec.Struct):
    containers: list[_Named]


class _Template(msgspec.Struct):
    spec: _Pod


class _Spec(msgspec.Struct):
    template: _Template
    replicas: int = 1


class _Status(msgspec.Struct, rename="camel"):
    observed_generation: int = 0
    replicas: int = 0
    updated_replicas: int = 0
    available_replicas: int = 0


class _Metadata(msgspec.Struct):
    generation: int


class Deployment(msgspec.Struct):
    """The part of a deployment that a roll-out is told by."""

    metadata: _Metadata
    spec: _Spec
    status: _Status = msgspec.field(default_factory=_Status)

    @property
    def is_rolled_out(self) -> bool:
        """Whether all its pods, and no others, are those of the last change."""
        status, wanted = self.status, self.spec.replicas
        seen = status.observed_generation >= self.metadata.generation
        return seen and wanted == status.updated_replicas == status.available_replicas == (
            status.replicas
        )


class Cluster(NamedTuple):
    """Where the API is, and where our token lies."""

    url: str
    account: Path = ACCOUNT

    @classmethod
    def around(cls, environment: Mapping[str, str] = os.environ) -> Cluster:
        """The cluster that this process runs in; raises ClusterError outside of one."""
        host = environment.get("KUBERNETES_SERVICE_HOST")
        if not host:
            raise ClusterError(
                "not in a pod: KUBERNETES_SERVICE_HOST is not set; name a `kubectl` instead"
            )
        port = environment.get("KUBERNETES_SERVICE_PORT", "443")
        return cls(f"https://{f'[{host}]' if ':' in host else host}:{port}")

    async def roll_out(
        self, namespace: str, deployment: str, variables: Mapping[str, str], timeout_s: float
    ) -> None:
        """Set variables in every container of a deployment; return when the new pods are up.

        Raises ClusterError, also when that takes longer than `timeout_s`.
        """
        path = f"/apis/apps/v1/namespaces/{namespace}/deployments/{deployment}"
        try:
            async with asyncio.timeout(timeout_s), self._session() as session:
                found = await self._asked(session.get(path), path)
                patch = _patch(found, variables)
                await self._asked(session.patch(path, data=patch, headers=_merging()), path)
                # A look now and then: a watch would have to be resumed whenever it breaks.
                while not (await self._asked(session.get(path), path)).is_rolled_out:  # noqa: ASYNC110
                    await asyncio.sleep(_POLL)
        except TimeoutError as error:
            raise ClusterError(f"{deployment}: not rolled out after {timeout_s:g} s") from error
        except (aiohttp.ClientError, OSError) as error:
            raise ClusterError(f"{self.url}: {error}") from error

    @asynccontextmanager
    async def _session(self) -> AsyncIterator[aiohttp.ClientSession]:
        trust = ssl.create_default_context(cafile=str(self.account / "ca.crt"))
        # Read anew each time: the cluster replaces it every hour.
        token = await asyncio.to_thread((self.account / "token").read_text)
        async with aiohttp.ClientSession(
            self.url,
            connector=aiohttp.TCPConnector(ssl=trust),
            headers={"authorization": f"Bearer {token.strip()}"},
            timeout=_ANSWER,
        ) as session:
            yield session

    async def _asked(self, request: aiohttp.client._RequestContextManager, path: str) -> Deployment:
        async with request as response:
            body = await response.read()
        if response.status >= 300:
            raise ClusterError(f"{path}: the cluster answers {response.status}")
        try:
            return msgspec.json.decode(body, type=Deployment)
        except msgspec.MsgspecError as error:
            raise ClusterError(f"{path}: not a deployment: {error}") from error


def _merging() -> dict[str, str]:
    return {"content-type": _MERGE}


def _patch(deployment: Deployment, variables: Mapping[str, str]) -> bytes:
    """Lists of containers and variables are merged by name."""
    env = [{"name": name, "value": value} for name, value in variables.items()]
    containers = [{"name": c.name, "env": env} for c in deployment.spec.template.spec.containers]
    return msgspec.json.encode({"spec": {"template": {"spec": {"containers": containers}}}})
