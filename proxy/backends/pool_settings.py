"""Settings of an engine's servers: how they are chosen, watched and restarted."""

from __future__ import annotations

from typing import Annotated, TypeAlias

import msgspec

from proxy.balance import BalanceSettings


class ByCommand(
    msgspec.Struct,
    frozen=True,
    forbid_unknown_fields=True,
    kw_only=True,
    tag="command",
    tag_field="kind",
):
    """A command that restarts one server with another list of adapters."""

    argv: Annotated[list[str], msgspec.Meta(min_length=1)]
    """The command and its arguments, run without a shell. `{adapters}` stands for the list as TGI's
    LORA_ADAPTERS takes it, `{name}` for host and port of the server, `{host}` and `{port}` for
    either. It returns once the old process is gone: what is proven after that is the new one."""
    timeout_s: Annotated[float, msgspec.Meta(gt=0)] = 300
    """Seconds that the command may take. Default 300: it waits for the process to end."""


class ByKubernetes(
    msgspec.Struct,
    frozen=True,
    forbid_unknown_fields=True,
    kw_only=True,
    tag="kubernetes",
    tag_field="kind",
):
    """A workload of which LORA_ADAPTERS is set, which rolls it out."""

    workload: str
    """As kubectl names it. `{host}` stands for the server's host: with a workload and a service for
    each server, `deployment/{host}`, one is drained and restarted after the other."""
    namespace: str = "default"
    kubectl: str | None = "kubectl"
    """The program. Default: the one on the PATH. `null`: none; the cluster that the proxy runs in
    is asked as the pod's service account, which needs `get` and `patch` on the deployments."""
    timeout_s: Annotated[float, msgspec.Meta(gt=0)] = 900
    """Seconds that the roll-out may take. Default 900: TGI quantises 8B weights as it loads."""

    def __post_init__(self) -> None:
        if self.kubectl is None and not self.workload.startswith("deployment/"):
            raise ValueError("without kubectl the workload must be `deployment/NAME`")


class ByHand(
    msgspec.Struct,
    frozen=True,
    forbid_unknown_fields=True,
    kw_only=True,
    tag="none",
    tag_field="kind",
):
    """Nobody: the operator is told what to start; the old adapter serves until it is there."""


RestartSettings: TypeAlias = ByCommand | ByKubernetes | ByHand


class PoolSettings(msgspec.Struct, frozen=True, forbid_unknown_fields=True, kw_only=True):
    """How the servers of one engine are used together."""

    balance: BalanceSettings = BalanceSettings()
    """Which server is next."""
    queue_s: Annotated[float, msgspec.Meta(ge=0)] = 2
    """Seconds that a request waits for a free place before the plan's next backend is asked.
    Default 2: about what a short answer takes, after which a place is likely to be free."""
    check_s: Annotated[float, msgspec.Meta(gt=0)] = 2
    """Seconds between two health checks of a server. Default 2."""
    answer_s: Annotated[float, msgspec.Meta(gt=0)] = 5
    """Seconds in which a health check must be answered. Default 5: a busy server is slow to."""
    resolve_s: Annotated[float, msgspec.Meta(gt=0)] = 10
    """Seconds after which names are resolved again. Default 10: new servers take longer to load."""
    canary_tokens: Annotated[int, msgspec.Meta(ge=1)] = 8
    """Tokens at the beginning of a canary's answer that must be the trained ones; more where base
    and adapter differ only later. Default 8: enough to know an adapter by, few enough that 4- and
    8-bit weights do not change them."""
    canary_s: Annotated[float, msgspec.Meta(gt=0)] = 60
    """Seconds that a canary's answer, or the loading of an adapter, may take. Default 60."""
    retry_s: Annotated[float, msgspec.Meta(gt=0)] = 60
    """Seconds until an adapter that a server failed to prove is tried there again. Default 60; a
    restart has it tried at once."""
    renew_s: Annotated[float, msgspec.Meta(gt=0)] = 60
    """Seconds for which a proof holds: then the canary is asked again, while the adapter serves.
    Default 60: a restart too short for a health check to see goes unnoticed no longer."""
    drain_s: Annotated[float, msgspec.Meta(gt=0)] = 330
    """Seconds that a server gets to end its requests before a restart is called off. Default 330:
    more than `total_s` allows a request to take."""
    start_s: Annotated[float, msgspec.Meta(gt=0)] = 900
    """Seconds for a restarted server to be well and prove its adapters. Default 900: TGI takes
    minutes to quantise an 8B model as it loads."""
    restart: RestartSettings = ByHand()
    """Who restarts a server that loads adapters only as it starts (TGI). Default: nobody."""
