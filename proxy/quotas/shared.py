"""A ledger that several proxies share, and what becomes of requests while it is away."""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence

import structlog

from proxy.errors import LimitsUnavailable
from proxy.quotas.base import Charge, Claim, Ledger, LedgerUnavailable, Verdict
from proxy.quotas.memory import MemoryLedger

log = structlog.get_logger(__name__)

_PAUSE_S = 1.0
"""Seconds that a server which failed is left alone: else every request would wait for its timeout.
"""


class SharedLedger:
    """Asks the shared ledger; while it is away, counts here (`open`) or refuses (`closed`)."""

    def __init__(
        self, shared: Ledger, *, is_open: bool, now: Callable[[], float] = time.monotonic
    ) -> None:
        self.lost = 0
        """Charges that the shared ledger never heard of."""
        self._shared = shared
        self._here = MemoryLedger()
        self._is_open = is_open
        self._now = now
        self._away_until = float("-inf")
        self._is_away = False

    async def take(self, claims: Sequence[Claim], lease: str) -> Verdict:
        """See Ledger; raises LimitsUnavailable where that is how it is set."""
        if self._now() >= self._away_until:
            try:
                verdict = await self._shared.take(claims, lease)
            except LedgerUnavailable as error:
                self._left(str(error))
            else:
                self._back()
                return verdict
        if not self._is_open:
            raise LimitsUnavailable("use cannot be counted now, and nothing is answered uncounted")
        return await self._here.take(claims, lease)

    async def settle(self, charges: Sequence[Charge], slots: Sequence[Claim], lease: str) -> None:
        """See Ledger. What was counted here while the server was away is settled here too."""
        await self._here.settle(charges, slots, lease)
        try:
            await self._shared.settle(charges, slots, lease)
        except LedgerUnavailable as error:
            self.lost += len(charges)
            self._left(str(error))

    async def renew(self, leases: Sequence[tuple[str, str]]) -> None:
        """See Ledger."""
        try:
            await self._shared.renew(leases)
        except LedgerUnavailable as error:
            self._left(str(error))

    def _left(self, reason: str) -> None:
        self._away_until = self._now() + _PAUSE_S
        if not self._is_away:
            log.error("shared_limits_unreachable", reason=reason, open=self._is_open)
        self._is_away = True

    def _back(self) -> None:
        if self._is_away:
            log.info("shared_limits_reachable", lost_charges=self.lost)
        self._is_away = False
