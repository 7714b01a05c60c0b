"""What a request claims of its quotas, and what ledgers of use say to that.

A *rate* is counted in a sliding window: what fell into the window before counts by the part of it
that still lies within the last minute. A *budget* is a sum that begins anew with the day or month.
A *slot* is held for as long as the request lasts.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from datetime import UTC, datetime, timedelta
from typing import Literal, NamedTuple, Protocol, TypeAlias

from proxy.quotas.settings import Per, Quota

WINDOW_S = 60.0
LEASE_S = 30.0
"""Seconds after which a shared slot is free that nobody renewed. Chosen: as a restart takes."""
_TOKEN = 4
"""Bytes of a prompt that make a token, until the backend has counted: about right for English."""

Unit: TypeAlias = Literal["requests", "tokens", "concurrent", "usd"]
Kind: TypeAlias = Literal["rate", "slot", "budget"]
_KINDS: dict[Unit, Kind] = {
    "requests": "rate",
    "tokens": "rate",
    "concurrent": "slot",
    "usd": "budget",
}


class LedgerUnavailable(Exception):
    """The ledger cannot be asked now."""


class Who(NamedTuple):
    """Whose use a request is."""

    tenant: str
    caller: str
    domain: str

    def named(self, per: Per) -> str:
        """The name under which its use is counted, and that `only` may have."""
        match per:
            case "caller":
                return f"{self.tenant}/{self.caller}"
            case "tenant":
                return self.tenant
            case "domain":
                return self.domain


class Claim(NamedTuple):
    """What a request takes of one counter."""

    key: str
    """Name of the counter."""
    per: Per
    unit: Unit
    limit: float
    amount: float
    ends_at: float = 0.0
    """When a budget begins anew, in seconds since the epoch."""

    @property
    def kind(self) -> Kind:
        return _KINDS[self.unit]


class Standing(NamedTuple):
    """How a counter stands once the claim is met."""

    claim: Claim
    remaining: float
    reset_s: float
    """Seconds until nothing is used."""


class Verdict(NamedTuple):
    """Whether all claims are met; where one is not, none is."""

    standings: list[Standing]
    refused: Claim | None = None
    wait_s: float = 0.0
    """Seconds until the refused claim could be met."""


class Charge(NamedTuple):
    """What is to be added to a counter once an answer is over; may be negative."""

    claim: Claim
    amount: float


class Ledger(Protocol):
    """Counts use. Raises LedgerUnavailable."""

    async def take(self, claims: Sequence[Claim], lease: str) -> Verdict:
        """Meet all claims, or none; `lease` names the slots that are taken."""

    async def settle(self, charges: Sequence[Charge], slots: Sequence[Claim], lease: str) -> None:
        """Count what an answer came to, and give back its slots."""

    async def renew(self, leases: Sequence[tuple[str, str]]) -> None:
        """These slots (key, lease) are still held: a ledger may forget those not heard of."""


def claims(quotas: Sequence[Quota], who: Who, size: int, now: float) -> list[Claim]:
    """What a request of `size` bytes claims; `now` in seconds since the epoch.

    Of several quotas that limit the same use, the smallest holds.
    """
    smallest: dict[str, Claim] = {}
    for quota in quotas:
        name = who.named(quota.per)
        if quota.only and name not in quota.only:
            continue
        for claim in _of(quota, f"{quota.per}:{name}", size, now):
            other = smallest.get(claim.key, claim)
            smallest[claim.key] = min(claim, other, key=lambda one: one.limit)
    return list(smallest.values())


def _of(quota: Quota, key: str, size: int, now: float) -> Iterator[Claim]:
    if quota.requests_per_minute is not None:
        yield Claim(f"{key}:rpm", quota.per, "requests", quota.requests_per_minute, 1)
    if quota.tokens_per_minute is not None:
        # More than there is in a minute could never be had; it takes the whole minute.
        tokens = min(size // _TOKEN, quota.tokens_per_minute)
        yield Claim(f"{key}:tpm", quota.per, "tokens", quota.tokens_per_minute, tokens)
    if quota.concurrent is not None:
        yield Claim(f"{key}:slots", quota.per, "concurrent", quota.concurrent, 1)
    yield from _budgets(quota, key, now)


def _budgets(quota: Quota, key: str, now: float) -> Iterator[Claim]:
    day = datetime.fromtimestamp(now, UTC).replace(hour=0, minute=0, second=0, microsecond=0)
    if quota.usd_per_day is not None:
        end = (day + timedelta(days=1)).timestamp()
        yield Claim(f"{key}:{day:%Y-%m-%d}", quota.per, "usd", quota.usd_per_day, 0, end)
    if quota.usd_per_month is not None:
        end = (day.replace(day=1) + timedelta(days=32)).replace(day=1).timestamp()
        yield Claim(f"{key}:{day:%Y-%m}", quota.per, "usd", quota.usd_per_month, 0, end)
