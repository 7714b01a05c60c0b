"""Makes what decides who is let in, and how much they may use."""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import AsyncExitStack, aclosing, asynccontextmanager
from typing import TYPE_CHECKING

from proxy.auth import Authenticator, KeyWatch, Tokens
from proxy.auth_settings import AuthSettings, OidcSettings
from proxy.beside import beside, missing
from proxy.config import Config
from proxy.keys.stores import store_of
from proxy.limits import Limits
from proxy.protocol.prices import PRICES
from proxy.quotas.base import Ledger
from proxy.quotas.memory import MemoryLedger
from proxy.quotas.settings import SharedSettings
from proxy.quotas.shared import SharedLedger

if TYPE_CHECKING:
    from proxy.quotas.redis import RedisLedger
    from proxy.tokens import ProviderTokens


def with_keys(settings: AuthSettings, tokens: Tokens | None = None) -> Authenticator:
    """Who is let in by the keys of routes.yaml, and by these tokens."""
    return Authenticator(
        settings.keys,
        is_open=settings.is_open,
        tokens=tokens,
        account_tenants=settings.account_tenants,
    )


@asynccontextmanager
async def authenticator(settings: AuthSettings) -> AsyncIterator[Authenticator]:
    """Who is let in, kept up to date; raises CannotStart while that cannot be known."""
    async with AsyncExitStack() as stack:
        tokens = None
        if settings.oidc is not None:
            tokens = _tokens(settings.oidc)
            await tokens.refresh()
            await stack.enter_async_context(beside(tokens.run(), "keys of the identity provider"))
        auth = with_keys(settings, tokens)
        store = store_of(settings.file, settings.database)
        if store is not None:
            watch = KeyWatch(auth, settings.keys, store, settings.refresh_s)
            await watch.refresh()
            await stack.enter_async_context(beside(watch.run(), "keys"))
        yield auth


def _tokens(settings: OidcSettings) -> ProviderTokens:
    try:
        from proxy.tokens import ProviderTokens
    except ImportError as error:
        raise missing("$.auth.oidc", "oidc", error) from error
    return ProviderTokens(settings)


# ---------------------------------------------------------------- limits


@asynccontextmanager
async def limits(config: Config, used: MemoryLedger | None = None) -> AsyncIterator[Limits]:
    """What callers may use, with what counts it beside; `used`: what they have used so far."""
    settings = config.limits
    ledger: Ledger | None = used
    async with AsyncExitStack() as stack:
        if settings.shared is not None:
            shared = _redis(settings.shared)
            await stack.enter_async_context(aclosing(shared))
            ledger = SharedLedger(shared, is_open=settings.shared.when_unreachable == "open")
        prices = {**PRICES, **(config.record.prices if config.record else {})}
        kept = Limits(settings.max_in_flight, settings.quotas, ledger, prices)
        await stack.enter_async_context(beside(kept.run(), "limits"))
        yield kept


def _redis(settings: SharedSettings) -> RedisLedger:
    try:
        from proxy.quotas.redis import RedisLedger
    except ImportError as error:
        raise missing("$.limits.shared", "redis", error) from error
    return RedisLedger(settings)
