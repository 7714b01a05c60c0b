"""Rolling out through a cluster's API: a scripted one over TLS, as there is no cluster here."""

from __future__ import annotations

import datetime
import ipaddress
import json
import ssl
from collections.abc import AsyncIterator
from pathlib import Path

import pytest
import pytest_asyncio
from aiohttp import web
from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec

from proxy import kubernetes
from proxy.kubernetes import Cluster, ClusterError

PATH = "/apis/apps/v1/namespaces/llm/deployments/engine-0"


class Api:
    """One deployment, which is rolled out after it was looked at twice."""

    def __init__(self) -> None:
        self.status = 200
        self.generation = 1
        self.looks = 0
        self.never = False
        self.patches: list[dict[str, object]] = []
        self.tokens: list[str] = []

    async def answer(self, request: web.Request) -> web.Response:
        self.tokens.append(request.headers["authorization"])
        if self.status != 200:
            return web.json_response({"kind": "Status"}, status=self.status)
        if request.method == "PATCH":
            assert request.content_type == "application/strategic-merge-patch+json"
            self.patches.append(json.loads(await request.text()))
            self.generation, self.looks = 2, 0
        else:
            self.looks += 1
        return web.json_response(self.deployment())

    def deployment(self) -> dict[str, object]:
        done = not self.never and self.looks >= 2
        status = {"observedGeneration": self.generation, "replicas": 1, "updatedReplicas": 1}
        spec = {"containers": [{"name": "engine"}, {"name": "sidecar"}]}
        return {
            "metadata": {"generation": self.generation},
            "spec": {"replicas": 1, "template": {"spec": spec}},
            "status": status | ({"availableReplicas": 1} if done else {}),
        }


def certificate(directory: Path) -> Path:
    """A self-signed certificate with its key, as `tls.pem` and `ca.crt`."""
    key = ec.generate_private_key(ec.SECP256R1())
    name = x509.Name([x509.NameAttribute(x509.NameOID.COMMON_NAME, "cluster")])
    now = datetime.datetime.now(datetime.UTC)
    address = x509.IPAddress(ipaddress.ip_address("127.0.0.1"))
    signed = (
        x509.CertificateBuilder()
        .subject_name(name)
        .issuer_name(name)
        .public_key(key.public_key())
        .serial_number(1)
        .not_valid_before(now - datetime.timedelta(hours=1))
        .not_valid_after(now + datetime.timedelta(hours=1))
        .add_extension(x509.SubjectAlternativeName([address]), critical=False)
        .sign(key, hashes.SHA256())
    )
    public = signed.public_bytes(serialization.Encoding.PEM)
    private = key.private_bytes(
        serialization.Encoding.PEM,
        serialization.PrivateFormat.PKCS8,
        serialization.NoEncryption(),
    )
    (directory / "ca.crt").write_bytes(public)
    (directory / "tls.pem").write_bytes(private + public)
    return directory / "tls.pem"


@pytest.fixture
def api() -> Api:
    return Api()


@pytest_asyncio.fixture
async def cluster(
    api: Api, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> AsyncIterator[Cluster]:
    monkeypatch.setattr(kubernetes, "_POLL", 0.01)
    (tmp_path / "token").write_text("of-the-pod\n")
    served = web.Application()
    served.router.add_route("*", PATH, api.answer)
    runner = web.AppRunner(served)
    await runner.setup()
    tls = ssl.create_default_context(ssl.Purpose.CLIENT_AUTH)
    tls.load_cert_chain(certificate(tmp_path))
    site = web.TCPSite(runner, "127.0.0.1", 0, ssl_context=tls)
    await site.start()
    host, port = runner.addresses[0][:2]
    found = Cluster.around({"KUBERNETES_SERVICE_HOST": host, "KUBERNETES_SERVICE_PORT": str(port)})
    yield found._replace(account=tmp_path)
    await runner.cleanup()


async def test_variables_are_set_in_every_container_and_waited_for(cluster: Cluster, api: Api):
    await cluster.roll_out("llm", "engine-0", {"LORA_ADAPTERS": "a-v1=/a"}, 10)

    env = [{"name": "LORA_ADAPTERS", "value": "a-v1=/a"}]
    containers = [{"name": "engine", "env": env}, {"name": "sidecar", "env": env}]
    assert api.patches == [{"spec": {"template": {"spec": {"containers": containers}}}}]
    assert api.looks == 2
    assert set(api.tokens) == {"Bearer of-the-pod"}


async def test_roll_out_that_does_not_end_is_given_up(cluster: Cluster, api: Api):
    api.never = True

    with pytest.raises(ClusterError, match=r"engine-0: not rolled out after 0\.3 s"):
        await cluster.roll_out("llm", "engine-0", {}, 0.3)


async def test_refusal_says_what_was_asked_for(cluster: Cluster, api: Api):
    api.status = 403

    with pytest.raises(ClusterError, match=r"deployments/engine-0: the cluster answers 403"):
        await cluster.roll_out("llm", "engine-0", {}, 5)


async def test_cluster_with_another_certificate_is_not_told_the_token(
    cluster: Cluster, api: Api, tmp_path: Path
):
    certificate(tmp_path)

    with pytest.raises(ClusterError, match="certificate"):
        await cluster.roll_out("llm", "engine-0", {}, 5)
    assert api.tokens == []


def test_outside_of_a_cluster_the_remedy_is_told():
    with pytest.raises(ClusterError, match="name a `kubectl`"):
        Cluster.around({})
