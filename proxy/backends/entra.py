"""Tokens of a Microsoft Entra identity: renewed before they end, out of the requests' way.

Optional: azure-identity is imported here, in `build`, when routes.yaml names an identity.
"""

from __future__ import annotations

import asyncio
import logging
import time
from typing import NamedTuple, Protocol

import structlog

from proxy.backends.settings import EntraSettings
from proxy.errors import BackendUnavailable, MissingExtra

log = structlog.get_logger(__name__)

_AHEAD_S = 240
"""Seconds before its end at which a token is renewed: azure-identity gives the old one out again
until 300 s before its end."""
_RETRY_S = 15
"""Seconds until a renewal that failed is tried again."""
_PATIENCE_S = 30
"""Seconds that one question for a token may take."""


class Token(NamedTuple):
    """As azure-identity's AccessToken."""

    token: str
    expires_on: int
    """Seconds since the epoch."""


class Credential(Protocol):
    """As azure-identity's asynchronous credentials."""

    async def get_token(self, scope: str, /) -> Token: ...

    async def close(self) -> None: ...


def build(name: str, settings: EntraSettings) -> Tokens:
    """The identity's tokens; raises MissingExtra when azure-identity is not installed."""
    try:
        from azure.identity import aio
    except ImportError as error:
        raise MissingExtra(
            f"$.backends.{name}.entra: an identity needs the package 'azure-identity', which is not"
            " installed; run: pip install 'headrace[azure]'"
        ) from error
    # Its warnings hold what Entra said; what concerns us is logged here.
    logging.getLogger("azure").setLevel(logging.ERROR)
    credential: Credential
    match settings.identity:
        case "client_secret":
            credential = aio.ClientSecretCredential(
                settings.tenant_id, settings.client_id, settings.client_secret
            )
        case "managed":
            credential = aio.ManagedIdentityCredential(client_id=settings.client_id)
        case "workload":
            credential = aio.WorkloadIdentityCredential(
                tenant_id=settings.tenant_id, client_id=settings.client_id
            )
    return Tokens(credential, settings.scope)


class Tokens:
    """The token of one identity. Run `run` beside its use."""

    def __init__(self, credential: Credential, scope: str) -> None:
        self._credential = credential
        self._scope = scope
        self._token = Token("", 0)
        self._renewal = asyncio.Lock()

    async def current(self) -> str:
        """A token that is valid now; asks for one only when there is none.

        Raises BackendUnavailable when none can be had.
        """
        if self._token.expires_on <= time.time():
            async with self._renewal:
                if self._token.expires_on <= time.time():
                    await self._renew()
        return self._token.token

    async def run(self) -> None:
        """Renew the token before it ends, until cancelled."""
        while True:
            try:
                async with self._renewal:
                    await self._renew()
                wait = max(self._token.expires_on - time.time() - _AHEAD_S, _RETRY_S)
            except BackendUnavailable as error:
                log.warning("token_not_renewed", reason=error.message)
                wait = _RETRY_S
            await asyncio.sleep(wait)

    async def aclose(self) -> None:
        """Close the connections to Entra."""
        await self._credential.close()

    async def _renew(self) -> None:
        try:
            async with asyncio.timeout(_PATIENCE_S):
                token = await self._credential.get_token(self._scope)
        except Exception as error:
            # Whatever the library raises; its text may hold parts of what was sent.
            raise BackendUnavailable(
                f"no token of the Entra identity could be had: {type(error).__name__}"
            ) from error
        self._token = Token(token.token, token.expires_on)
