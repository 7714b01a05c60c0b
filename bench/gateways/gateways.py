"""The gateways that are measured: how each is started, and which versions they are.

Headrace in three configurations, and its peers as their makers say to run them, with limits raised
where they would refuse the load. A peer that is not installed is left out.
"""

from __future__ import annotations

import compileall
import os
import re
import shutil
import subprocess
import sys
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import NamedTuple

from bench.gateways import upstream
from bench.gateways.bodies import MODEL
from bench.gateways.processes import free_port

ROOT = Path(__file__).parents[2]
PEERS = ROOT / ".venv-peers/bin"
LITELLM = ROOT / ".venv-litellm-proxy/bin"
PORTKEY = ROOT / "bench/gateways/node/node_modules/@portkey-ai/gateway/build/start-server.js"


class Launch(NamedTuple):
    """A gateway's process."""

    command: list[str]
    environment: Mapping[str, str] = {}
    headers: Mapping[str, str] = {}
    """What its clients send besides, so that it knows where to go."""


class Gateway(NamedTuple):
    """Something that passes requests on."""

    name: str
    about: str
    launch: Callable[[int, int, Path], Launch]
    """Its own port, the upstream's, and a directory for its settings → its process."""
    version: str | None
    """None: it is not installed."""
    timed: bool = True
    """Whether it is measured at a constant rate: LiteLLM does not reach it on one core."""


def headrace(settings: str, root: Path = ROOT) -> Callable[[int, int, Path], Launch]:
    """Headrace as it is in a checkout, with these settings."""

    def launch(port: int, there: int, directory: Path) -> Launch:
        # As pip does when it installs. Where PYTHONDONTWRITEBYTECODE is set, a checkout is compiled
        # at each start otherwise: 0.18 s.
        compileall.compile_dir(root / "proxy", quiet=1)
        path = directory / f"routes-{port}.yaml"
        (directory / "adapters").mkdir(exist_ok=True)
        path.write_text(settings.format(there=there, record=directory / f"record-{port}"))
        command = [sys.executable, "-m", "proxy", "serve", "--config", str(path)]
        return Launch([*command, "--port", str(port)], {"PYTHONPATH": str(root)})

    return launch


_TOP = f"version: 1\nmodels: [{MODEL}]\nlimits: {{{{max_in_flight: 4096}}}}\n"
_CLOUD = (
    "  cloud: {{kind: openai, base_url: 'http://127.0.0.1:{there}/v1', max_connections: 4096}}\n"
)
RELAY = f"""{_TOP}
backends:
{_CLOUD}
domains: {{{{all: {{{{plan: [cloud]}}}}}}}}
defaults: {{{{tools: all, chat: all}}}}
"""
ROUTED = f"""{_TOP}
backends:
  engine:
    kind: vllm
    mode: chat
    plain: hermes
    base_model: smollm2-135m-instruct
    served_model: {MODEL}
    replicas: ['http://127.0.0.1:{{there}}']
    adapters: adapters
    max_in_flight: 4096
{_CLOUD}
domains:
  weather: {{{{plan: [engine, cloud], tools: ['weather_service_*']}}}}
  other: {{{{plan: [cloud]}}}}
defaults: {{{{tools: other, chat: other}}}}
"""
RECORDED = f"{ROUTED}\nrecord: {{{{directory: '{{record}}'}}}}\n"


def _nginx(port: int, there: int, directory: Path) -> Launch:
    path = upstream.nginx_as_gateway(port, there, directory)
    return Launch([_found("nginx") or "nginx", "-c", str(path), "-p", str(directory)])


def _router(*program: str) -> Callable[[int, int, Path], Launch]:
    """vllm-router and sglang-router: forks of one program, with the same options."""

    def launch(port: int, there: int, directory: Path) -> Launch:
        return Launch([
            str(PEERS / program[0]), *program[1:], "--host", "127.0.0.1", "--port", str(port),
            "--worker-urls", f"http://127.0.0.1:{there}", "--policy", "round_robin",
            "--max-concurrent-requests", "4096", "--prometheus-port", str(free_port()),
        ])  # fmt: skip

    return launch


def _litellm(port: int, there: int, directory: Path) -> Launch:
    path = directory / f"litellm-{port}.yaml"
    path.write_text(
        f"model_list: [{{model_name: {MODEL}, litellm_params: {{model: openai/{MODEL}, "
        f"api_base: 'http://127.0.0.1:{there}/v1', api_key: none}}}}]\n"
    )
    command = [str(LITELLM / "litellm"), "--config", str(path), "--host", "127.0.0.1"]
    return Launch(
        [*command, "--port", str(port)],
        {
            "LITELLM_MODE": "PRODUCTION",
            "LITELLM_LOG": "ERROR",
            "LITELLM_LOCAL_MODEL_COST_MAP": "True",
            "LITELLM_DANGEROUSLY_PERMIT_WEAK_OR_UNSET_MASTER_KEY": "true",
        },
    )


def _portkey(port: int, there: int, directory: Path) -> Launch:
    return Launch(
        ["node", str(PORTKEY), f"--port={port}", "--headless"],
        {"TRUSTED_CUSTOM_HOSTS": "127.0.0.1", "NODE_ENV": "production"},
        {
            "x-portkey-provider": "openai",
            "x-portkey-custom-host": f"http://127.0.0.1:{there}/v1",
            "authorization": "Bearer none",
        },
    )


def all_of_them() -> list[Gateway]:
    """All gateways, Headrace first; those that are not installed have no version."""
    ours = _installed(Path(sys.executable).parent, "headrace")
    routed, recorded = headrace(ROUTED), headrace(RECORDED)
    nginx = _found("nginx")
    vllm, sglang = _router("vllm-router"), _router("sglang-router", "launch")
    return [
        Gateway("headrace-relay", "Headrace: relay only", headrace(RELAY), ours),
        Gateway("headrace-verify", "Headrace: routing, verification", routed, ours),
        Gateway("headrace-record", "Headrace: these and the full record", recorded, ours),
        Gateway("nginx", "nginx", _nginx, nginx and _said([nginx, "-v"])),
        Gateway("vllm-router", "vllm-router", vllm, _installed(PEERS, "vllm-router")),
        Gateway("sglang-router", "sglang-router", sglang, _installed(PEERS, "sglang-router")),
        Gateway("portkey", "Portkey", _portkey, _portkey_version()),
        Gateway("litellm", "LiteLLM proxy", _litellm, _installed(LITELLM, "litellm"), timed=False),
    ]


def _found(program: str) -> str | None:
    return shutil.which(program, path=f"{os.environ['PATH']}:/usr/sbin")


def _installed(environment: Path, package: str) -> str | None:
    if not (environment / package).exists():
        return None
    code = f"from importlib.metadata import version as v;print(v({package!r}))"
    return _said([str(environment / "python"), "-c", code])


def _portkey_version() -> str | None:
    if not PORTKEY.exists() or _found("node") is None:
        return None
    found = re.search(r'"version": "([^"]+)"', (PORTKEY.parents[1] / "package.json").read_text())
    return found and found[1]


def _said(command: list[str]) -> str | None:
    """The last word of what a program prints, behind a slash; None when it fails."""
    ran = subprocess.run(command, capture_output=True, text=True, check=False, cwd=ROOT)
    said = (ran.stdout + ran.stderr).split()
    return said[-1].rpartition("/")[2] if ran.returncode == 0 and said else None
