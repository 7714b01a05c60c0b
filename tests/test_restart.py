from __future__ import annotations

import os
import sys
from pathlib import Path

import pytest

from proxy.backends.engine import Replica
from proxy.backends.pool_settings import ByCommand, ByHand, ByKubernetes
from proxy.protocol.adapter import Adapter, Canary, Manifest
from proxy.restart import RestartFailed, lora_adapters, restarter

REPLICA = Replica("tgi-a:8080", "http://tgi-a:8080")
WRITE = "import sys; open(sys.argv[1], 'w').write('\\n'.join(sys.argv[2:]))"


def adapter(id: str, directory: str = "/adapters") -> Adapter:
    manifest = Manifest(
        id=id,
        domain="api",
        format="hermes",
        base_model="tiny",
        base_sha256="",
        tokenizer_sha256="",
        template_sha256="",
        weights_sha256="",
        dataset_fingerprint="",
    )
    return Adapter(Path(directory) / id, manifest, "", Canary([], [], []))


def test_list_is_written_as_tgi_takes_it():
    adapters = [adapter("mail-v2"), adapter("api-v1")]

    assert lora_adapters(adapters, None) == "api-v1=/adapters/api-v1,mail-v2=/adapters/mail-v2"
    assert lora_adapters(adapters, "/mnt/") == "api-v1=/mnt/api-v1,mail-v2=/mnt/mail-v2"


@pytest.mark.parametrize("directory", ["/a,b", "/a=b", "/a@b"])
def test_path_that_would_break_the_list_apart_is_refused(directory: str):
    with pytest.raises(RestartFailed, match="move the adapters' directory"):
        lora_adapters([adapter("api-v1", directory)], None)


def test_operator_is_nobody_to_call():
    assert restarter(ByHand()) is None


async def test_command_gets_the_list_and_the_server_as_arguments_and_no_shell(tmp_path: Path):
    seen = tmp_path / "seen"
    words = ["{adapters}", "{name}", "unit@{host}", "{port}", "$HOME; {other}"]
    settings = ByCommand(argv=[sys.executable, "-c", WRITE, str(seen), *words])

    await restarter(settings).restart(REPLICA, "api-v1=/a/api-v1")

    assert seen.read_text().splitlines() == [
        "api-v1=/a/api-v1",
        "tgi-a:8080",
        "unit@tgi-a",
        "8080",
        "$HOME; {other}",
    ]


async def test_command_that_fails_is_told_with_its_complaint():
    complain = "import sys; sys.exit('x' * 9000 + ' no such unit')"
    settings = ByCommand(argv=[sys.executable, "-c", complain])

    with pytest.raises(RestartFailed, match=r"exit code 1: x+ no such unit$") as caught:
        await restarter(settings).restart(REPLICA, "")

    assert len(str(caught.value)) < 700


async def test_command_that_is_not_there_is_told():
    with pytest.raises(RestartFailed, match="/no/such/program: No such file"):
        await restarter(ByCommand(argv=["/no/such/program"])).restart(REPLICA, "")


async def test_command_that_takes_too_long_is_killed(tmp_path: Path):
    pid = tmp_path / "pid"
    sleep = f"import os, time; open({str(pid)!r}, 'w').write(str(os.getpid())); time.sleep(600)"
    settings = ByCommand(argv=[sys.executable, "-c", sleep], timeout_s=2)

    with pytest.raises(RestartFailed, match="not done after 2 s"):
        await restarter(settings).restart(REPLICA, "")

    with pytest.raises(ProcessLookupError):
        os.kill(int(pid.read_text()), 0)


async def test_kubernetes_is_told_the_list_and_waited_for(tmp_path: Path):
    """A script stands in for kubectl: there is no cluster here."""
    kubectl, seen = tmp_path / "kubectl", tmp_path / "seen"
    kubectl.write_text(f'#!/bin/sh\necho "$@" >> {seen}\n')
    kubectl.chmod(0o755)
    settings = ByKubernetes(
        workload="deployment/{host}", namespace="llm", kubectl=str(kubectl), timeout_s=60
    )

    await restarter(settings).restart(REPLICA, "api-v1=/a/api-v1")

    change, wait = seen.read_text().splitlines()
    assert change.startswith(
        "--namespace llm set env deployment/tgi-a LORA_ADAPTERS=api-v1=/a/api-v1"
        " HEADRACE_RESTARTED_AT="
    )
    assert wait == "--namespace llm rollout status deployment/tgi-a --timeout=60s"


async def test_without_kubectl_the_cluster_around_is_asked(monkeypatch: pytest.MonkeyPatch):
    monkeypatch.delenv("KUBERNETES_SERVICE_HOST", raising=False)
    settings = ByKubernetes(workload="deployment/{host}", kubectl=None)

    with pytest.raises(RestartFailed, match="not in a pod"):
        await restarter(settings).restart(REPLICA, "api-v1=/a/api-v1")


def test_without_kubectl_only_deployments_are_restarted():
    with pytest.raises(ValueError, match="deployment/NAME"):
        ByKubernetes(workload="statefulset/tgi", kubectl=None)
