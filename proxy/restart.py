"""Ways to restart an engine's server with another list of adapters, for those that load no other
way (TGI). What is run comes from routes.yaml alone; a bundle gives no more than its checked id.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import Mapping, Sequence
from contextlib import suppress
from typing import TYPE_CHECKING, Protocol
from urllib.parse import urlsplit

from proxy.backends.pool_settings import ByCommand, ByHand, ByKubernetes, RestartSettings
from proxy.protocol.adapter import Adapter

if TYPE_CHECKING:
    from proxy.backends.engine import Replica

_TOLD = 500
"""Characters of a failed command's complaint that are logged."""


class RestartFailed(Exception):
    """A server was not restarted; the message says why."""


class Restarter(Protocol):
    """Restarts one server."""

    async def restart(self, replica: Replica, adapters: str) -> None:
        """Return once the old process is gone and a new one has begun with these adapters, in the
        form of LORA_ADAPTERS.

        Raises RestartFailed.
        """


def restarter(settings: RestartSettings) -> Restarter | None:
    """The one that the settings ask for; None where the operator restarts servers by hand."""
    match settings:
        case ByCommand():
            return _Command(settings)
        case ByKubernetes():
            return _Kubernetes(settings)
        case ByHand():
            return None


def lora_adapters(adapters: Sequence[Adapter], there: str | None) -> str:
    """The list as TGI takes it, `id=path,id=path`; `there` is the bundles' directory as it sees it.

    Raises RestartFailed for a path that would break the list apart.
    """
    paths = {a.id: f"{there.rstrip('/')}/{a.id}" if there else str(a.path) for a in adapters}
    for path in paths.values():
        if any(sign in path for sign in ",=@"):
            raise RestartFailed(
                f"{path}: TGI takes no path with ',', '=' or '@'; move the adapters' directory"
            )
    return ",".join(f"{id}={path}" for id, path in sorted(paths.items()))


class _Command:
    def __init__(self, settings: ByCommand) -> None:
        self._settings = settings

    async def restart(self, replica: Replica, adapters: str) -> None:
        argv = [_filled(word, replica, adapters) for word in self._settings.argv]
        await _run(argv, self._settings.timeout_s)


class _Kubernetes:
    def __init__(self, settings: ByKubernetes) -> None:
        # Here, as it takes a full HTTP client, which few others need.
        from proxy import kubernetes

        self._api = kubernetes
        self._settings = settings

    async def restart(self, replica: Replica, adapters: str) -> None:
        workload = _filled(self._settings.workload, replica, adapters)
        # The time makes it a change, and so a roll-out, even where the list is what it was.
        began = str(int(time.time()))
        variables = {"LORA_ADAPTERS": adapters, "HEADRACE_RESTARTED_AT": began}
        if self._settings.kubectl is None:
            await self._asked(workload.removeprefix("deployment/"), variables)
        else:
            await self._commanded(self._settings.kubectl, workload, variables)

    async def _asked(self, deployment: str, variables: Mapping[str, str]) -> None:
        settings = self._settings
        try:
            await self._api.Cluster.around().roll_out(
                settings.namespace, deployment, variables, settings.timeout_s
            )
        except self._api.ClusterError as error:
            raise RestartFailed(str(error)) from error

    async def _commanded(self, kubectl: str, workload: str, variables: Mapping[str, str]) -> None:
        settings = self._settings
        command = [kubectl, "--namespace", settings.namespace]
        set_to = [f"{name}={value}" for name, value in variables.items()]
        limit = f"--timeout={settings.timeout_s:g}s"
        await _run([*command, "set", "env", workload, *set_to], settings.timeout_s)
        await _run([*command, "rollout", "status", workload, limit], settings.timeout_s + 10)


def _filled(word: str, replica: Replica, adapters: str) -> str:
    url = urlsplit(replica.url)
    values = {
        "{adapters}": adapters,
        "{name}": replica.name,
        "{host}": url.hostname or "",
        "{port}": str(url.port or ""),
    }
    for placeholder, value in values.items():
        word = word.replace(placeholder, value)
    return word


async def _run(argv: Sequence[str], timeout_s: float) -> None:
    """Run a command to its end; raises RestartFailed when it fails, or takes too long."""
    try:
        process = await asyncio.create_subprocess_exec(
            *argv,
            stdin=asyncio.subprocess.DEVNULL,
            stdout=asyncio.subprocess.DEVNULL,
            stderr=asyncio.subprocess.PIPE,
        )
    except OSError as error:
        raise RestartFailed(f"{argv[0]}: {error.strerror}") from error
    try:
        async with asyncio.timeout(timeout_s):
            _, said = await process.communicate()
    except TimeoutError as error:
        raise RestartFailed(f"{argv[0]}: not done after {timeout_s:g} s") from error
    finally:
        if process.returncode is None:
            with suppress(ProcessLookupError):
                process.kill()
            await process.wait()
    if process.returncode != 0:
        complaint = said.decode(errors="replace").strip()[-_TOLD:]
        raise RestartFailed(f"{argv[0]}: exit code {process.returncode}: {complaint}")
