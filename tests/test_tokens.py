"""A real provider on a real socket: discovery, key set, and keys that change."""

from __future__ import annotations

import time
from collections.abc import AsyncIterator
from dataclasses import dataclass, field

import jwt
import msgspec
import pytest
from cryptography.hazmat.primitives.asymmetric import ec, rsa
from starlette.responses import JSONResponse
from starlette.routing import Route, Router

from proxy.auth import Authenticator, Caller
from proxy.auth_settings import OidcSettings
from proxy.errors import Unauthenticated
from proxy.tokens import ProviderTokens, ProviderUnavailable
from tests.serving import listening


@dataclass
class Provider:
    issuer: str = ""
    keys: dict[str, object] = field(default_factory=dict)
    calls_itself: str | None = None

    async def discovery(self, _):
        name = self.calls_itself or self.issuer
        return JSONResponse({"issuer": name, "jwks_uri": f"{self.issuer}/jwks"})

    async def jwks(self, _):
        return JSONResponse({"keys": [self._public(kid) for kid in self.keys]})

    def _public(self, kid):
        key = self.keys[kid]
        kind = jwt.algorithms.ECAlgorithm if _is_ec(key) else jwt.algorithms.RSAAlgorithm
        return {**kind.to_jwk(key.public_key(), as_dict=True), "kid": kid, "use": "sig"}

    def token(self, kid: str = "one", **claims) -> bytes:
        whole = {"iss": self.issuer, "aud": "headrace", "exp": time.time() + 60, "sub": "ada"}
        key = self.keys[kid]
        algorithm = "ES256" if _is_ec(key) else "RS256"
        said = {name: value for name, value in (whole | claims).items() if value is not None}
        return jwt.encode(said, key, algorithm=algorithm, headers={"kid": kid}).encode()


def _is_ec(key) -> bool:
    return isinstance(key, ec.EllipticCurvePrivateKey)


@pytest.fixture
async def provider() -> AsyncIterator[Provider]:
    it = Provider(keys={"one": ec.generate_private_key(ec.SECP256R1())})
    router = Router(
        [Route("/.well-known/openid-configuration", it.discovery), Route("/jwks", it.jwks)]
    )
    async with listening(router) as url:
        it.issuer = url.removesuffix("/v1")
        yield it


async def tokens_of(provider: Provider, **settings) -> ProviderTokens:
    tokens = ProviderTokens(OidcSettings(issuer=provider.issuer, audience="headrace", **settings))
    await tokens.refresh()
    return tokens


async def test_token_names_caller_and_tenant(provider: Provider):
    tokens = await tokens_of(provider, tenant_claim="org")
    auth = Authenticator([], is_open=False, tokens=tokens)

    caller = auth.authenticate({b"authorization": b"Bearer " + provider.token(org="acme")})

    assert caller == Caller("acme", "ada")


async def test_rsa_keys_are_read_too(provider: Provider):
    provider.keys["one"] = rsa.generate_private_key(65537, 2048)

    assert (await tokens_of(provider)).caller(provider.token()) == Caller("default", "ada")


async def test_scopes_come_from_claims(provider: Provider):
    tokens = await tokens_of(
        provider, admin_claim="roles", domains_claim="domains", models_claim="models"
    )

    caller = tokens.caller(provider.token(roles=["headrace-admin"], domains=["a"]))

    assert (caller.is_admin, caller.domains, caller.models) == (True, {"a"}, frozenset())


@pytest.mark.parametrize(
    ("claims", "why"),
    [
        ({"exp": 1}, "expired"),
        ({"exp": None}, "lacks a claim"),
        ({"nbf": time.time() + 3600}, "malformed, or"),
        ({"aud": "other"}, "another audience"),
        ({"aud": None}, "lacks a claim"),
        ({"iss": "https://evil"}, "another provider"),
        ({"org": None}, "lacks the claim 'org'"),
        ({"org": ["a"]}, "lacks the claim 'org'"),
        ({"sub": ""}, "lacks the claim 'sub'|malformed"),
    ],
)
async def test_bad_claims_are_refused_with_the_reason(provider: Provider, claims, why):
    tokens = await tokens_of(provider, tenant_claim="org")

    with pytest.raises(Unauthenticated, match=why):
        tokens.caller(provider.token(**({"org": "acme"} | claims)))


async def test_signatures_of_others_are_refused(provider: Provider):
    tokens = await tokens_of(provider)
    provider.keys["one"] = ec.generate_private_key(ec.SECP256R1())
    forged = provider.token()
    unsigned = jwt.encode({"sub": "ada"}, None, algorithm="none", headers={"kid": "one"}).encode()
    shared = jwt.encode({"sub": "ada"}, "x" * 32, headers={"kid": "one"}).encode()

    for token in (forged, unsigned, shared, b"a.b.c", b"..", provider.token()[:-4]):
        with pytest.raises(Unauthenticated):
            tokens.caller(token)


async def test_what_is_no_token_is_left_to_others(provider: Provider):
    tokens = await tokens_of(provider)

    assert tokens.caller(b"sk-headrace-x") is None
    assert tokens.caller(b"a." * 20_000 + b"b") is None


async def test_new_key_is_fetched_when_a_token_names_it(provider: Provider):
    tokens = await tokens_of(provider)
    provider.keys["two"] = ec.generate_private_key(ec.SECP256R1())

    with pytest.raises(Unauthenticated, match="not known here yet"):
        tokens.caller(provider.token("two"))
    assert tokens._wanted.is_set()
    await tokens.refresh()

    assert tokens.caller(provider.token("two")) is not None


async def test_provider_that_calls_itself_otherwise_is_told(provider: Provider):
    provider.calls_itself = "https://other"

    with pytest.raises(ProviderUnavailable, match=r"auth\.oidc.*https://other"):
        await tokens_of(provider)


async def test_keys_stay_when_the_provider_is_gone(provider: Provider):
    tokens = await tokens_of(provider)
    token = provider.token()
    tokens._settings = msgspec.structs.replace(tokens._settings, jwks_url="http://127.0.0.1:1/")

    with pytest.raises(ProviderUnavailable):
        await tokens.refresh()

    assert tokens.caller(token) is not None
