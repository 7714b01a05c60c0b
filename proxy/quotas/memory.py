"""A ledger in memory: for one proxy, and for each of several while their server is away."""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass

from proxy.quotas.base import WINDOW_S, Charge, Claim, Standing, Verdict

_MOST = 100_000
"""Counters that are held. Chosen: some 20 MiB; above it those that count nothing are let go."""
_TINY = 1e-9


@dataclass(slots=True)
class Window:
    """What was used in a sliding window of WINDOW_S seconds. Pure: the time is told."""

    start: float
    previous: float = 0.0
    """Used in the window before this one."""
    current: float = 0.0

    def advance(self, now: float) -> None:
        """Begin another window if this one is over; or this one anew, if the clock went back."""
        # Else nobody would be let in until it is again as late as it was.
        self.start = min(self.start, now)
        passed = (now - self.start) // WINDOW_S
        if passed >= 2:
            self.start, self.previous, self.current = now, 0.0, 0.0
        elif passed == 1:
            self.start += WINDOW_S
            self.previous, self.current = self.current, 0.0

    def used(self, now: float) -> float:
        """What counts now."""
        return self.previous * (1 - (now - self.start) / WINDOW_S) + self.current

    def wait(self, now: float, amount: float, limit: float) -> float:
        """Seconds until there is room for `amount`; 0 where there is."""
        if self.used(now) + amount <= limit + _TINY:
            return 0.0
        room = limit - self.current - amount
        if room >= 0:
            return self.start + WINDOW_S * (1 - room / self.previous) - now
        then = max(0.0, limit - amount) / self.current
        return self.start + WINDOW_S * (2 - then) - now

    def reset(self, now: float) -> float:
        """Seconds until nothing counts."""
        if self.current > 0:
            return self.start + 2 * WINDOW_S - now
        return self.start + WINDOW_S - now if self.previous > 0 else 0.0


class MemoryLedger:
    """Counts in this process. Decides without an await: nobody comes between look and take."""

    def __init__(self, now: Callable[[], float] = time.time) -> None:
        self._now = now
        self._windows: dict[str, Window] = {}
        self._sums: dict[str, tuple[float, float]] = {}
        """Counter → what is spent, and when that ends."""
        self._slots: dict[str, set[str]] = {}

    async def take(self, claims: Sequence[Claim], lease: str) -> Verdict:
        """See Ledger."""
        now = self._now()
        self._let_go(now)
        for claim in claims:
            wait = self._wait(claim, now)
            if wait > 0:
                return Verdict([self._standing(claim, now)], claim, wait)
        for claim in claims:
            self._count(claim, claim.amount, lease)
        return Verdict([self._standing(claim, now) for claim in claims])

    async def settle(self, charges: Sequence[Charge], slots: Sequence[Claim], lease: str) -> None:
        """See Ledger."""
        for charge in charges:
            self._count(charge.claim, charge.amount, lease)
        self.release(slots, lease)

    def release(self, slots: Sequence[Claim], lease: str) -> None:
        """Give back slots, at once."""
        for claim in slots:
            held = self._slots.get(claim.key, set())
            held.discard(lease)
            if not held:
                self._slots.pop(claim.key, None)

    async def renew(self, leases: Sequence[tuple[str, str]]) -> None:
        """Nothing: slots of this process live and die with it."""

    def _wait(self, claim: Claim, now: float) -> float:
        match claim.kind:
            case "rate":
                return self._window(claim.key, now).wait(now, claim.amount, claim.limit)
            case "slot":
                return 1.0 if len(self._slots.get(claim.key, ())) >= claim.limit else 0.0
            case "budget":
                spent, _ = self._sums.get(claim.key, (0.0, 0.0))
                return claim.ends_at - now if spent >= claim.limit - _TINY else 0.0

    def _count(self, claim: Claim, amount: float, lease: str) -> None:
        match claim.kind:
            case "rate":
                window = self._window(claim.key, self._now())
                window.current = max(0.0, window.current + amount)
            case "slot":
                self._slots.setdefault(claim.key, set()).add(lease)
            case "budget":
                spent, _ = self._sums.get(claim.key, (0.0, 0.0))
                self._sums[claim.key] = (spent + amount, claim.ends_at)

    def _standing(self, claim: Claim, now: float) -> Standing:
        match claim.kind:
            case "rate":
                window = self._window(claim.key, now)
                return Standing(claim, claim.limit - window.used(now), window.reset(now))
            case "slot":
                return Standing(claim, claim.limit - len(self._slots.get(claim.key, ())), 0.0)
            case "budget":
                spent, _ = self._sums.get(claim.key, (0.0, 0.0))
                return Standing(claim, claim.limit - spent, claim.ends_at - now)

    def _window(self, key: str, now: float) -> Window:
        window = self._windows.setdefault(key, Window(now))
        window.advance(now)
        return window

    def _let_go(self, now: float) -> None:
        if len(self._windows) + len(self._sums) < _MOST:
            return
        self._windows = {k: w for k, w in self._windows.items() if now - w.start < 2 * WINDOW_S}
        self._sums = {key: (s, end) for key, (s, end) in self._sums.items() if end > now}
