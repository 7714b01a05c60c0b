"""A ledger in Redis or Valkey: several proxies count together, atomically, by the server's clock.

One script decides and takes: between a look and a take nobody comes. All keys share one hash tag,
so that a cluster keeps them on one node. Slots are leases: those of a proxy that died end by
themselves. The extra `redis`.
"""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Sequence
from typing import TypeVar

import redis.asyncio as client
from redis.asyncio.retry import Retry
from redis.backoff import NoBackoff
from redis.exceptions import RedisError

from proxy.quotas.base import (
    LEASE_S,
    WINDOW_S,
    Charge,
    Claim,
    LedgerUnavailable,
    Standing,
    Verdict,
)
from proxy.quotas.settings import SharedSettings

_CONNECTIONS = 64
_KEEP_S = 86_400
"""Seconds that a budget is kept beyond its end, for whoever looks at it."""

_Returned = TypeVar("_Returned")

# A rate is a hash {s: start of the window, p: used before it, c: used in it}, as memory.Window.
_WINDOW = """
local time = redis.call('TIME')
local now = tonumber(time[1]) + tonumber(time[2]) / 1000000
local W = tonumber(ARGV[1])
local function window(key)
    local kept = redis.call('HMGET', key, 's', 'p', 'c')
    local s, p, c = tonumber(kept[1] or now), tonumber(kept[2] or 0), tonumber(kept[3] or 0)
    local passed = math.floor((now - s) / W)
    if passed >= 2 then s, p, c = now, 0, 0 elseif passed == 1 then s, p, c = s + W, c, 0 end
    return s, p, c
end
local function keep(key, s, p, c)
    redis.call('HSET', key, 's', string.format('%.6f', s), 'p', p, 'c', c)
    redis.call('PEXPIRE', key, math.ceil(W * 2000))
end
"""

_TAKE = (
    _WINDOW
    + """
local lease, lease_s = ARGV[2], tonumber(ARGV[3])
local found, said = {}, {}
for i, key in ipairs(KEYS) do
    local kind, amount = ARGV[4 * i], tonumber(ARGV[4 * i + 1])
    local limit, ends_at = tonumber(ARGV[4 * i + 2]), tonumber(ARGV[4 * i + 3])
    local wait, remaining, reset = 0, 0, 0
    if kind == 'rate' then
        local s, p, c = window(key)
        local used = p * (1 - (now - s) / W) + c
        if used + amount > limit + 1e-9 then
            local room = limit - c - amount
            if room >= 0 then wait = s + W * (1 - room / p) - now
            else wait = s + W * (2 - math.max(0, limit - amount) / c) - now end
        end
        found[i] = {s, p, c}
        remaining = limit - used - amount
        if c + amount > 0 then reset = s + 2 * W - now elseif p > 0 then reset = s + W - now end
    elseif kind == 'slot' then
        redis.call('ZREMRANGEBYSCORE', key, '-inf', now)
        remaining = limit - redis.call('ZCARD', key) - 1
        if remaining < 0 then wait = 1 end
    else
        remaining = limit - tonumber(redis.call('GET', key) or 0)
        reset = ends_at - now
        if remaining <= 1e-9 then wait = reset end
    end
    if wait > 0 then return {i, tostring(wait), tostring(remaining), tostring(reset)} end
    said[2 * i], said[2 * i + 1] = tostring(remaining), tostring(reset)
end
said[1] = 0
for i, key in ipairs(KEYS) do
    local kind, amount = ARGV[4 * i], tonumber(ARGV[4 * i + 1])
    if kind == 'rate' then
        keep(key, found[i][1], found[i][2], found[i][3] + amount)
    elseif kind == 'slot' then
        redis.call('ZADD', key, now + lease_s, lease)
        redis.call('PEXPIRE', key, math.ceil(lease_s * 2000))
    end
end
return said
"""
)

_SETTLE = (
    _WINDOW
    + """
for i, key in ipairs(KEYS) do
    local kind, amount, rest = ARGV[3 * i - 1], tonumber(ARGV[3 * i]), ARGV[3 * i + 1]
    if kind == 'rate' then
        local s, p, c = window(key)
        keep(key, s, p, math.max(0, c + amount))
    elseif kind == 'slot' then
        redis.call('ZREM', key, rest)
    else
        redis.call('INCRBYFLOAT', key, amount)
        redis.call('EXPIREAT', key, rest)
    end
end
"""
)

_RENEW = """
local time = redis.call('TIME')
local ends = tonumber(time[1]) + tonumber(time[2]) / 1000000 + tonumber(ARGV[1])
for i, key in ipairs(KEYS) do
    redis.call('ZADD', key, 'XX', ends, ARGV[i + 1])
    redis.call('PEXPIRE', key, math.ceil(ARGV[1] * 2000))
end
"""


class RedisLedger:
    """Counts on a server; connects when it is first asked, and again when it must."""

    def __init__(self, settings: SharedSettings, window_s: float = WINDOW_S) -> None:
        self._timeout_s = settings.timeout_s
        self._prefix = f"{{{settings.prefix}}}:"
        self._window_s = window_s
        pool = client.BlockingConnectionPool.from_url(
            settings.url,
            timeout=settings.timeout_s,
            socket_timeout=settings.timeout_s,
            socket_connect_timeout=settings.timeout_s,
            max_connections=_CONNECTIONS,
            retry=Retry(NoBackoff(), 0),
        )
        self._client = client.Redis.from_pool(pool)
        self._take = self._client.register_script(_TAKE)
        self._settle = self._client.register_script(_SETTLE)
        self._renew = self._client.register_script(_RENEW)

    async def take(self, claims: Sequence[Claim], lease: str) -> Verdict:
        """See Ledger."""
        keys = [self._prefix + claim.key for claim in claims]
        each = (
            part
            for c in claims
            for part in (c.kind, repr(c.amount), repr(c.limit), repr(c.ends_at))
        )
        said = await self._told(self._take(keys, [self._window_s, lease, LEASE_S, *each]))
        refused, numbers = int(said[0]), [float(number) for number in said[1:]]
        if refused:
            wait, remaining, reset = numbers
            claim = claims[refused - 1]
            return Verdict([Standing(claim, max(0.0, remaining), reset)], claim, wait)
        pairs = zip(claims, numbers[::2], numbers[1::2], strict=True)
        return Verdict([Standing(*pair) for pair in pairs])

    async def settle(self, charges: Sequence[Charge], slots: Sequence[Claim], lease: str) -> None:
        """See Ledger."""
        keys = [self._prefix + c.claim.key for c in charges]
        keys += [self._prefix + claim.key for claim in slots]
        each: list[str | int] = []
        for claim, amount in charges:
            each += [claim.kind, repr(amount), int(claim.ends_at) + _KEEP_S]
        for _ in slots:
            each += ["slot", "0", lease]
        if keys:
            await self._told(self._settle(keys, [self._window_s, *each]))

    async def renew(self, leases: Sequence[tuple[str, str]]) -> None:
        """See Ledger."""
        if leases:
            keys = [self._prefix + key for key, _ in leases]
            await self._told(self._renew(keys, [LEASE_S, *(lease for _, lease in leases)]))

    async def aclose(self) -> None:
        """Close the connections."""
        await self._client.aclose()

    async def _told(self, answer: Awaitable[_Returned]) -> _Returned:
        try:
            async with asyncio.timeout(self._timeout_s):
                return await answer
        except (RedisError, OSError, TimeoutError) as error:
            # Not the error's own text: it may hold the URL with its password.
            raise LedgerUnavailable(type(error).__name__) from error
