"""How much at once, and how much in all: without a slot a request is told when to return.

Quotas are claimed before an answer begins, and settled in the background once it is over: what it
came to in tokens and money is known only then.
"""

from __future__ import annotations

import asyncio
import secrets
import time
from collections.abc import Callable, Sequence
from contextlib import AbstractAsyncContextManager, suppress
from types import TracebackType
from typing import Annotated, NamedTuple, Self

import msgspec
import structlog

from proxy.counting import Counting
from proxy.errors import BudgetSpent, TooManyRequests
from proxy.logs import Facts
from proxy.protocol.exchange import CHAT
from proxy.protocol.prices import PRICES, PriceTable
from proxy.quotas.base import LEASE_S, Charge, Claim, Ledger, Standing, Who, claims
from proxy.quotas.memory import MemoryLedger
from proxy.quotas.settings import Quota, SharedSettings
from proxy.recording import Recording

log = structlog.get_logger(__name__)

_GRACE_S = 5.0
"""Seconds at the end to count what is over. Chosen: a server that is there answers at once."""


class LimitSettings(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """What the proxy takes on."""

    max_in_flight: Annotated[int, msgspec.Meta(ge=1)] = 256
    """Requests at once, over all callers; one more gets a 429. Default 256, chosen: well above what
    the embedded engine can batch, well below what a process runs out of files at."""
    max_body_mib: Annotated[float, msgspec.Meta(gt=0)] = 32
    """Largest request body in MiB; more gets a 413. Default 32: room for images in a message."""
    max_upload_mib: Annotated[float, msgspec.Meta(gt=0)] = 512
    """Largest body in MiB of what is passed on to a cloud as it comes: files, audio, images. It is
    never held here. Default 512: the largest file that OpenAI takes."""
    deadline_s: Annotated[float, msgspec.Meta(gt=0)] = 120
    """Seconds until an answer must have begun, over all attempts together, and longest silence
    after that. A client that waits less (x-stainless-read-timeout) shortens it. Default 120."""
    longest_s: Annotated[float, msgspec.Meta(gt=0)] = 1800
    """Seconds that a streamed answer may take in all. Default 1800: the slowest models think for
    minutes, and some servers never stop."""
    quotas: list[Quota] = []
    """What callers, tenants and domains may use. Default: no more limits than these."""
    shared: SharedSettings | None = None
    """Where several proxies count together. Default: each counts on its own, from its start."""
    grace_s: Annotated[float, msgspec.Meta(ge=0)] = 10
    """Seconds that requests in flight have to finish when the server stops, and seconds that the
    record then has to be written. Default 10, so that both fit into the 30 of Kubernetes."""


class _Lease(NamedTuple):
    """What quotas hold for a request."""

    id: str
    claims: Sequence[Claim]


class Slot(AbstractAsyncContextManager["Slot"]):
    """A request's place, and what is known of what it uses."""

    def __init__(self, limits: Limits, who: Who, body: bytes, facts: Facts) -> None:
        self.recording: Recording | None = None
        """What was said, and so used; None where it never came to that."""
        self._limits = limits
        self._asked = (who, body, facts)
        self._lease: _Lease | None = None

    @property
    def is_metered(self) -> bool:
        """Whether what the answer comes to is counted: in tokens or in money."""
        return self._lease is not None and any(map(_is_metered, self._lease.claims))

    async def __aenter__(self) -> Self:
        self._lease = await self._limits.enter(*self._asked)
        return self

    async def __aexit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        self._limits.leave(self._lease, self.recording)


class _Over(NamedTuple):
    """A request that is over, and whose use is to be counted."""

    claims: Sequence[Claim]
    lease: str
    recording: Recording | None


class Limits:
    """The slots of one process, and the quotas of its callers."""

    def __init__(
        self,
        max_in_flight: int,
        quotas: Sequence[Quota] = (),
        ledger: Ledger | None = None,
        prices: PriceTable = PRICES,
        now: Callable[[], float] = time.time,
    ) -> None:
        self.in_flight = 0
        self._max = max_in_flight
        self._quotas = quotas
        self._ledger = ledger or MemoryLedger()
        self._prices = prices
        self._now = now
        self._over: asyncio.Queue[_Over] = asyncio.Queue()
        self._held: dict[str, list[Claim]] = {}
        """Lease → the slots that it holds."""

    def admit(self, who: Who, body: bytes, facts: Facts) -> Slot:
        """Hold a slot for as long as the context lasts; entering it raises TooManyRequests when
        there is none, or a quota is used up."""
        return Slot(self, who, body, facts)

    async def enter(self, who: Who, body: bytes, facts: Facts) -> _Lease | None:
        """Take a slot; what quotas hold for it, if any do."""
        if self.in_flight >= self._max:
            raise TooManyRequests(f"{self._max} requests are in flight already; try again soon")
        self.in_flight += 1
        if not self._quotas:
            return None
        try:
            return await self._claimed(who, body, facts)
        except BaseException:
            self.in_flight -= 1
            raise

    def leave(self, lease: _Lease | None, recording: Recording | None) -> None:
        """Give a slot back; `recording` says what was used of the quotas."""
        self.in_flight -= 1
        if lease is None:
            return
        slots = self._held.pop(lease.id)
        if isinstance(self._ledger, MemoryLedger):
            self._ledger.release(slots, lease.id)
        self._over.put_nowait(_Over(lease.claims, lease.id, recording))

    async def _claimed(self, who: Who, body: bytes, facts: Facts) -> _Lease | None:
        claimed = claims(self._quotas, who, len(body), self._now())
        if not claimed:
            return None
        lease = _Lease(secrets.token_hex(8), claimed)
        verdict = await self._ledger.take(claimed, lease.id)
        facts.limits = headers(verdict.standings)
        if verdict.refused is not None:
            raise _refusal(verdict.refused, verdict.wait_s)
        self._held[lease.id] = [claim for claim in claimed if claim.kind == "slot"]
        return lease

    # ------------------------------------------------------------ afterwards

    async def run(self) -> None:
        """Count what answers came to, until cancelled; then what is left."""
        async with asyncio.TaskGroup() as tasks:
            renewing = tasks.create_task(self._renew(), name="slots of quotas")
            try:
                while True:
                    await self._settle_next()
            finally:
                renewing.cancel()
                with suppress(TimeoutError):
                    async with asyncio.timeout(_GRACE_S):
                        while not self._over.empty():
                            await self._settle(self._over.get_nowait())

    async def _settle_next(self) -> None:
        over = await self._over.get()
        try:
            await self._settle(over)
        except asyncio.CancelledError:
            self._over.put_nowait(over)
            raise

    async def _settle(self, over: _Over) -> None:
        charges: list[Charge] = []
        try:
            charges = await asyncio.to_thread(_charges, over, self._prices)
        except Exception:
            # An answer that cannot be read must not end the counting of all others.
            log.exception("use_not_counted")
        slots = [claim for claim in over.claims if claim.kind == "slot"]
        await self._ledger.settle(charges, slots, over.lease)

    async def _renew(self) -> None:
        while True:
            await asyncio.sleep(LEASE_S / 3)
            held = [(claim.key, id) for id, slots in self._held.items() for claim in slots]
            await self._ledger.renew(held)


def _is_metered(claim: Claim) -> bool:
    return claim.unit in ("tokens", "usd")


def _charges(over: _Over, prices: PriceTable) -> list[Charge]:
    """What is to be added to what was claimed at first; reads what was said, so not in the loop."""
    counted = [claim for claim in over.claims if _is_metered(claim)]
    if not counted or over.recording is None or _told_nothing(over.recording):
        return []
    tokens, usd = spent(over.recording, prices)
    return [
        Charge(claim, usd if claim.unit == "usd" else tokens - claim.amount) for claim in counted
    ]


def _told_nothing(recording: Recording) -> bool:
    """Whether this was passed on unread, and did not say what it used: what it claimed stays."""
    exchange = recording.exchange()
    return exchange.endpoint != CHAT and all(one.usage is None for one in exchange.attempts)


def spent(recording: Recording, prices: PriceTable) -> tuple[int, float]:
    """Tokens and US dollars that all attempts at a request came to."""
    exchange = recording.exchange()
    count, size = Counting(prices), len(bytes(exchange.request))
    attempts = [count(one, size) for one in exchange.attempts]
    tokens = sum(one.usage.total_tokens for one in attempts if one.usage is not None)
    return tokens, sum(one.cost_usd or 0.0 for one in attempts)


# ---------------------------------------------------------------- what a client is told


def headers(standings: Sequence[Standing]) -> dict[str, str]:
    """OpenAI's x-ratelimit headers, of the limits that are closest.

    Those of a domain are left out: others use it too, and how much is not this caller's to know.
    """
    told: dict[str, str] = {}
    for unit in ("requests", "tokens"):
        own = [s for s in standings if s.claim.unit == unit and s.claim.per != "domain"]
        if own:
            nearest = min(own, key=lambda standing: standing.remaining)
            told[f"x-ratelimit-limit-{unit}"] = str(int(nearest.claim.limit))
            told[f"x-ratelimit-remaining-{unit}"] = str(max(0, int(nearest.remaining)))
            told[f"x-ratelimit-reset-{unit}"] = _duration(nearest.reset_s)
    return told


def _duration(seconds: float) -> str:
    """As OpenAI writes it: `20ms`, `1.5s`, `6m0s`."""
    if seconds < 1:
        return f"{max(0, round(seconds * 1000))}ms"
    minutes, rest = divmod(round(seconds, 1), 60)
    return f"{int(minutes)}m{rest:g}s" if minutes else f"{rest:g}s"


def _refusal(claim: Claim, wait_s: float) -> TooManyRequests:
    whose = f"this {claim.per}"
    match claim.unit:
        case "usd":
            return BudgetSpent(f"the budget of {claim.limit:g} USD of {whose} is spent", wait_s)
        case "concurrent":
            said = f"{claim.limit:g} requests of {whose} are in flight already"
        case unit:
            said = f"the limit of {claim.limit:g} {unit} a minute of {whose} is reached"
    return TooManyRequests(f"{said}; try again in {wait_s:.1f} s", wait_s)
