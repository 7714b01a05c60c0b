"""Tokens of an identity provider: JWTs, verified with the keys that it publishes.

Sources: RFC 7519 (JWT), RFC 7517 (JWKS), OpenID Connect Discovery 1.0. Verification is PyJWT's, the
extra `oidc`; it needs no network, as the keys are fetched beside the requests.
"""

from __future__ import annotations

import asyncio
from collections.abc import Iterable, Mapping

import aiohttp
import jwt
import msgspec
import structlog

from proxy.auth import Caller
from proxy.auth_settings import OidcSettings
from proxy.errors import CannotStart, Unauthenticated

log = structlog.get_logger(__name__)

_MAX_ANSWER = 1024 * 1024
"""Bytes of a key set or discovery document: far above any in use."""
_MAX_TOKEN = 16 * 1024
"""Bytes of a token: what servers take for a header."""
_TIMEOUT = aiohttp.ClientTimeout(total=10)
_PAUSE_S = 5.0
"""Seconds between two fetches: tokens with made-up keys shall not have us ask all the time."""
_WELL_KNOWN = "/.well-known/openid-configuration"


class _Discovery(msgspec.Struct):
    issuer: str
    jwks_uri: str


class _KeySet(msgspec.Struct):
    keys: list[dict[str, object]]


class ProviderUnavailable(CannotStart):
    """The identity provider's keys cannot be had."""


class ProviderTokens:
    """Reads tokens with the provider's keys of now."""

    def __init__(self, settings: OidcSettings) -> None:
        self._settings = settings
        self._keys: Mapping[str, jwt.PyJWK] = {}
        self._wanted = asyncio.Event()

    # ------------------------------------------------------------ reading

    def caller(self, token: bytes) -> Caller | None:
        """See auth.Tokens."""
        if token.count(b".") != 2 or len(token) > _MAX_TOKEN:
            return None
        try:
            claims = self._claims(token)
        except (jwt.PyJWTError, ValueError) as error:
            raise Unauthenticated(f"the token is not valid here: {_why(error)}") from None
        return _caller(claims, self._settings)

    def _claims(self, token: bytes) -> Mapping[str, object]:
        settings = self._settings
        key = self._keys.get(str(jwt.get_unverified_header(token).get("kid", "")))
        if key is None:
            self._wanted.set()
            raise Unauthenticated("the token's key is not the provider's, or not known here yet")
        claims: Mapping[str, object] = jwt.decode(
            token,
            key,
            algorithms=list(settings.algorithms),
            audience=settings.audience,
            issuer=settings.issuer,
            leeway=settings.leeway_s,
            options={"require": ["exp", "iss", "aud"]},
        )
        return claims

    # ------------------------------------------------------------ keys

    async def refresh(self) -> None:
        """Fetch the keys once; raises ProviderUnavailable."""
        try:
            async with aiohttp.ClientSession(timeout=_TIMEOUT) as session:
                url = self._settings.jwks_url or await self._discovered(session)
                found = msgspec.json.decode(await _fetched(session, url), type=_KeySet)
        except (aiohttp.ClientError, TimeoutError, ValueError) as error:
            raise ProviderUnavailable(
                f"$.auth.oidc: no keys from {self._settings.issuer}: {error}"
            ) from error
        self._keys = dict(_usable(found.keys))

    async def run(self) -> None:
        """Fetch them again until cancelled; those at hand stay until there are others."""
        while True:
            await asyncio.sleep(_PAUSE_S)
            try:
                async with asyncio.timeout(max(0.0, self._settings.refresh_s - _PAUSE_S)):
                    await self._wanted.wait()
            except TimeoutError:
                pass
            self._wanted.clear()
            try:
                await self.refresh()
            except ProviderUnavailable as error:
                log.error("identity_provider_unavailable", reason=str(error))

    async def _discovered(self, session: aiohttp.ClientSession) -> str:
        said = await _fetched(session, self._settings.issuer.rstrip("/") + _WELL_KNOWN)
        found = msgspec.json.decode(said, type=_Discovery)
        if found.issuer != self._settings.issuer:
            raise ValueError(f"it calls itself {found.issuer!r}; write `issuer` so")
        return found.jwks_uri


async def _fetched(session: aiohttp.ClientSession, url: str) -> bytes:
    async with session.get(url, allow_redirects=False) as response:
        if response.status != 200:
            raise ValueError(f"{url} answers {response.status}")
        content = await response.content.read(_MAX_ANSWER)
        while not response.content.at_eof() and len(content) < _MAX_ANSWER:
            content += await response.content.read(_MAX_ANSWER - len(content))
        return content


def _usable(keys: Iterable[Mapping[str, object]]) -> Iterable[tuple[str, jwt.PyJWK]]:
    """Keys by id; what is not for signatures, or of a kind that we do not know, is left out."""
    for key in keys:
        if key.get("use", "sig") != "sig" or key.get("kty") == "oct":
            continue
        try:
            yield str(key.get("kid", "")), jwt.PyJWK(dict(key))
        except jwt.PyJWTError as error:
            log.warning("identity_key_skipped", reason=type(error).__name__)


# ---------------------------------------------------------------- claims


def _caller(claims: Mapping[str, object], settings: OidcSettings) -> Caller:
    tenant = settings.tenant
    if settings.tenant_claim is not None:
        tenant = _text(claims, settings.tenant_claim)
    return Caller(
        tenant,
        _text(claims, settings.name_claim),
        _is_admin(claims, settings),
        _listed(claims, settings.domains_claim),
        _listed(claims, settings.models_claim),
    )


def _text(claims: Mapping[str, object], name: str) -> str:
    found = claims.get(name)
    if not isinstance(found, str) or not found:
        raise Unauthenticated(f"the token lacks the claim {name!r}")
    return found


def _listed(claims: Mapping[str, object], name: str | None) -> frozenset[str] | None:
    if name is None:
        return None
    found = claims.get(name)
    return frozenset(map(str, found)) if isinstance(found, list) else frozenset()


def _is_admin(claims: Mapping[str, object], settings: OidcSettings) -> bool:
    if settings.admin_claim is None:
        return False
    found = claims.get(settings.admin_claim)
    return settings.admin_value in (found if isinstance(found, list) else [found])


def _why(error: Exception) -> str:
    """In words of ours, as the library's may hold parts of the token."""
    match error:
        case jwt.ExpiredSignatureError():
            return "it has expired"
        case jwt.InvalidAudienceError():
            return "it is for another audience"
        case jwt.InvalidIssuerError():
            return "another provider issued it"
        case jwt.MissingRequiredClaimError():
            return "it lacks a claim (exp, iss and aud are needed)"
        case _:
            return "it is malformed, or its signature is wrong"
