"""Applications and pods get their tokens from Entra, here a scripted server of tokens over TLS."""

from __future__ import annotations

import asyncio
import ipaddress
import ssl
from collections.abc import AsyncIterator
from datetime import UTC, datetime, timedelta
from pathlib import Path
from urllib.parse import parse_qs

import pytest

pytest.importorskip("azure.identity", reason="needs the azure extra")
pytest.importorskip("cryptography", reason="needs the record extra")

from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.x509.oid import NameOID

from tests.scripted import ScriptedCloud, answer, completion
from tests.test_main import served
from tests.wire import ask

HI = completion({"role": "assistant", "content": "hi"})
SECRET = "entra-s3cret"
ASSERTION = "what-kubernetes-says-of-this-pod"


def certificate(directory: Path) -> tuple[Path, Path]:
    """A certificate of 127.0.0.1 that is its own authority, and its key."""
    key = ec.generate_private_key(ec.SECP256R1())
    name = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, "tokens")])
    here = x509.SubjectAlternativeName([x509.IPAddress(ipaddress.ip_address("127.0.0.1"))])
    now = datetime.now(UTC)
    signed = (
        x509.CertificateBuilder(name, name, key.public_key(), x509.random_serial_number())
        .not_valid_before(now - timedelta(days=1))
        .not_valid_after(now + timedelta(days=1))
        .add_extension(here, critical=False)
        .add_extension(x509.BasicConstraints(ca=True, path_length=0), critical=True)
        .sign(key, hashes.SHA256())
    )
    pem = serialization.Encoding.PEM
    shown, kept = directory / "certificate.pem", directory / "key.pem"
    shown.write_bytes(signed.public_bytes(pem))
    plain = serialization.PrivateFormat.PKCS8, serialization.NoEncryption()
    kept.write_bytes(key.private_bytes(pem, *plain))
    return shown, kept


@pytest.fixture
async def entra(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> AsyncIterator[ScriptedCloud]:
    """Entra, as processes that are started now see it."""
    shown, kept = certificate(tmp_path)
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(shown, kept)
    tokens = ScriptedCloud()
    server = await asyncio.start_server(tokens.serve, "127.0.0.1", 0, ssl=context)
    host, port = server.sockets[0].getsockname()
    monkeypatch.setenv("AZURE_AUTHORITY_HOST", f"https://{host}:{port}")
    monkeypatch.setenv("SSL_CERT_FILE", str(shown))
    yield tokens
    server.close()


def token(value: str) -> bytes:
    return answer({"access_token": value, "expires_in": 3600, "token_type": "Bearer"})


def routes(directory: Path, cloud: ScriptedCloud, entra: str) -> Path:
    path = directory / "routes.yaml"
    path.write_text(
        "version: 1\nmodels: [gpt-4o]\n"
        f"backends: {{cloud: {{kind: azure, endpoint: '{cloud.base_url.removesuffix('/v1')}',"
        f" entra: {{{entra}}}}}}}\n"
        "domains: {all: {plan: [cloud]}}\ndefaults: {tools: all, chat: all}\n"
    )
    return path


async def asked(path: Path, entra: ScriptedCloud) -> dict[str, str]:
    """What Entra was told for the token that two requests were sent with."""
    async with served(path) as server:
        for _ in range(2):
            response = await ask(server.base_url)
            assert response.status == 200
        await server.stop()
    (request,) = entra.requests
    assert request.target == "/contoso/oauth2/v2.0/token"
    return {name: value for name, (value,) in parse_qs(request.body.decode()).items()}


async def test_application_shows_its_secret(
    cloud: ScriptedCloud, entra: ScriptedCloud, tmp_path: Path
):
    cloud.plays(answer(HI))
    entra.plays(token("token-of-app"))
    who = f"identity: client_secret, tenant_id: contoso, client_id: app, client_secret: {SECRET}"

    told = await asked(routes(tmp_path, cloud, who), entra)

    assert told["grant_type"] == "client_credentials"
    assert (told["client_id"], told["client_secret"]) == ("app", SECRET)
    assert told["scope"] == "https://cognitiveservices.azure.com/.default"
    sent = [request.headers["authorization"] for request in cloud.requests]
    assert sent == ["Bearer token-of-app"] * 2


async def test_pod_shows_what_kubernetes_says_of_it(
    cloud: ScriptedCloud,
    entra: ScriptedCloud,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
):
    cloud.plays(answer(HI))
    entra.plays(token("token-of-pod"))
    (tmp_path / "assertion").write_text(ASSERTION)
    monkeypatch.setenv("AZURE_FEDERATED_TOKEN_FILE", str(tmp_path / "assertion"))
    monkeypatch.setenv("AZURE_TENANT_ID", "contoso")
    monkeypatch.setenv("AZURE_CLIENT_ID", "pod")

    told = await asked(routes(tmp_path, cloud, "identity: workload"), entra)

    assert told["client_id"] == "pod"
    assert told["client_assertion"] == ASSERTION
    assert "client_secret" not in told
    sent = [request.headers["authorization"] for request in cloud.requests]
    assert sent == ["Bearer token-of-pod"] * 2


async def test_refused_application_is_an_unavailable_backend_and_its_secret_stays_here(
    cloud: ScriptedCloud, entra: ScriptedCloud, tmp_path: Path
):
    entra.plays(answer({"error": "invalid_client", "error_description": SECRET}, status=401))
    who = f"identity: client_secret, tenant_id: contoso, client_id: app, client_secret: {SECRET}"

    async with served(routes(tmp_path, cloud, who)) as server:
        response = await ask(server.base_url)
        await server.stop()
        logged = (await server.process.stderr.read()).decode()

    assert response.json["error"]["code"] == "backend_unavailable"
    assert "token_not_renewed" in logged
    assert SECRET not in logged + response.content.decode()
    assert cloud.requests == []
