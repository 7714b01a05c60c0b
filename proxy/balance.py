"""Which replica next: pure decisions; the caller's clock tells the time.

    up ──failures──▶ open ──open_s──▶ half-open ──one trial ends well──▶ up, slowly
                      ▲                    │
                      └────trial fails─────┘   (twice as long each time)

Of the replicas that may take a request, the one with the fewest tokens in flight gets it, unless
the adapter and the beginning of the prompt ran on another one not long ago: its prefix cache is
worth as many tokens as it saves, and no more, so that affinity never beats a long queue.

There is no `await` here: whoever reads the loads and takes a place does so in one step.
"""

from __future__ import annotations

from collections import OrderedDict, deque
from collections.abc import Callable, Hashable, Iterable
from dataclasses import dataclass, field
from typing import Annotated, Literal, TypeAlias

import msgspec

Outcome: TypeAlias = Literal["served", "failed", "neutral"]
"""How a use of a replica ended. Failed: a 5xx, a timeout, a broken connection. Neutral says nothing
about the replica: the client left, or sent what no replica would serve."""

State: TypeAlias = Literal["up", "slow", "open", "half_open", "down", "draining"]


class BalanceSettings(msgspec.Struct, frozen=True, forbid_unknown_fields=True, kw_only=True):
    """How requests are spread over replicas."""

    affinity_tokens: Annotated[int, msgspec.Meta(ge=0)] = 4096
    """Tokens in flight by which a replica that knows the prompt's beginning may be ahead of the
    idlest and still be chosen; never more than the prompt has, as no cache saves more. Default
    4096: two requests. 0 chooses by load alone."""
    failures: Annotated[int, msgspec.Meta(ge=1)] = 3
    """So many failures among the last twice as many uses stop the use of a replica. Default 3: a
    single one may be the request's own doing."""
    open_s: Annotated[float, msgspec.Meta(gt=0)] = 5
    """Seconds until a stopped replica is tried with one request; doubles with each trial that
    fails, up to 12 times as long. Default 5: a restarted process is back that soon, or not yet."""
    slow_start_s: Annotated[float, msgspec.Meta(ge=0)] = 20
    """Seconds in which a replica that came back grows from a tenth of its share to all of it, while
    others have room. Default 20: its caches are cold, its graphs not yet captured."""


_LONGEST = 12
"""Times `open_s` that a stopped replica waits at most. Chosen: a minute at the default."""
_COLD = 0.1
"""Share of the work that a replica begins with. Chosen: one request in ten shows what it can do."""
_REMEMBERED = 4096
"""Beginnings of prompts whose replica is kept in mind. Chosen: some 400 KiB."""


@dataclass(slots=True)
class _Replica:
    uses: int = 0
    """Requests in flight."""
    tokens: int = 0
    """Tokens in flight: of the prompts, and of the answers as far as they may go."""
    is_healthy: bool = True
    is_draining: bool = False
    outcomes: deque[bool] = field(default_factory=deque)
    """Whether each of the last uses failed."""
    opened_at: float | None = None
    """When the breaker opened; None while it is closed."""
    trips: int = 0
    """How often in a row it opened without a good trial."""
    in_trial: bool = False
    since: float = float("-inf")
    """When it came back, from which its share grows."""
    chosen: int = 0
    """Number of the choice that last fell on it: of equals, the one that rested longest is next."""


@dataclass(frozen=True, slots=True)
class Picked:
    """A place that is taken on a replica, until `end`."""

    id: str
    tokens: int
    is_trial: bool
    replica: _Replica
    """Kept here, so that a place on a replica that was forgotten meanwhile frees no other's."""


@dataclass(frozen=True, slots=True)
class Full:
    """A replica could take it later: all places are taken."""


@dataclass(frozen=True, slots=True)
class Nobody:
    """No replica can be expected to take it."""


Choice: TypeAlias = Picked | Full | Nobody


class Balancer:
    """The replicas' loads and breakers, and the choice that follows from them."""

    def __init__(
        self, settings: BalanceSettings, max_in_flight: int, clock: Callable[[], float]
    ) -> None:
        """`max_in_flight` holds for each replica; `clock` gives seconds that never go back."""
        self._settings = settings
        self._max_in_flight = max_in_flight
        self._clock = clock
        self._replicas: dict[str, _Replica] = {}
        self._choices = 0
        self._ran_on: OrderedDict[Hashable, str] = OrderedDict()
        """Beginning of a prompt, or an adapter, → the replica that it last ran on."""

    # ------------------------------------------------------------ who there is

    def keep(self, ids: Iterable[str]) -> None:
        """These replicas are there, others are forgotten. One that joins later starts slowly."""
        since = self._clock() if self._replicas else float("-inf")
        self._replicas = {id: self._replicas.get(id) or _Replica(since=since) for id in ids}

    def set_healthy(self, id: str, is_healthy: bool) -> None:
        """What the health check says. Coming back closes the breaker, and starts slowly."""
        replica = self._replicas[id]
        if is_healthy and not replica.is_healthy:
            self._close(replica)
        replica.is_healthy = is_healthy

    def set_draining(self, id: str, is_draining: bool) -> None:
        """Whether a replica gets no new requests; those in flight go on."""
        replica = self._replicas[id]
        if replica.is_draining and not is_draining:
            self._close(replica)
        replica.is_draining = is_draining

    def state(self, id: str) -> State:
        """What is to be said of a replica."""
        replica = self._replicas[id]
        if replica.is_draining:
            return "draining"
        if not replica.is_healthy:
            return "down"
        if replica.opened_at is not None:
            return "half_open" if self._may_be_tried(replica) else "open"
        return "up" if self._share(replica) == 1 else "slow"

    def in_flight(self, id: str) -> int:
        """Requests that a replica works on; 0 for one that is gone."""
        return self._replicas[id].uses if id in self._replicas else 0

    # ------------------------------------------------------------ one use

    def is_spared(self, among: Iterable[str]) -> bool:
        """Whether one of these is well and has less than half of its places taken."""
        enough = max(1, self._max_in_flight // 2)
        there = (id for id in among if id in self._replicas)
        return any(self.state(id) == "up" and self.in_flight(id) < enough for id in there)

    def choose(self, among: Iterable[str], tokens: int, prefix: tuple[str, str]) -> Choice:
        """Take a place for a request of so many tokens on one of these replicas.

        `prefix` is the adapter's id and what identifies the beginning of the prompt.
        """
        there = {id: self._replicas[id] for id in among if id in self._replicas}
        usable = {id: replica for id, replica in there.items() if self._is_usable(replica)}
        free = [id for id, replica in usable.items() if self._has_room(replica)]
        if not free:
            return Full() if usable else Nobody()
        # One that just came back is spared as long as others have room, and no longer.
        calm = [id for id in free if self._is_within_share(usable[id])]
        return self._begin(self._pick(calm or free, tokens, prefix), tokens, prefix)

    def end(self, picked: Picked, outcome: Outcome) -> None:
        """A use is over: its place is free, and the breaker has heard how it went. Call it once."""
        replica = picked.replica
        replica.uses -= 1
        replica.tokens -= picked.tokens
        if replica.opened_at is None:
            self._count(replica, outcome)
        elif picked.is_trial and replica.in_trial:
            # What else was under way when it opened tells nothing new.
            self._conclude(replica, outcome)

    def _pick(self, free: list[str], tokens: int, prefix: tuple[str, str]) -> str:
        idlest = min(free, key=lambda id: (self._load(id), self._replicas[id].chosen))
        bound = self._load(idlest) + min(tokens, self._settings.affinity_tokens)
        for key in (prefix, prefix[0]):
            known = self._ran_on.get(key)
            if known in free and self._load(known) < bound:
                return known
        return idlest

    def _begin(self, id: str, tokens: int, prefix: tuple[str, str]) -> Picked:
        replica = self._replicas[id]
        replica.uses += 1
        replica.tokens += tokens
        replica.in_trial = replica.opened_at is not None
        self._choices += 1
        replica.chosen = self._choices
        for key in (prefix, prefix[0]):
            self._ran_on[key] = id
            self._ran_on.move_to_end(key)
        while len(self._ran_on) > _REMEMBERED:
            self._ran_on.popitem(last=False)
        return Picked(id, tokens, replica.in_trial, replica)

    def _load(self, id: str) -> float:
        """Tokens in flight, as heavy as they are for a replica that just came back."""
        replica = self._replicas[id]
        return replica.tokens / self._share(replica)

    # ------------------------------------------------------------ breaker

    def _is_usable(self, replica: _Replica) -> bool:
        if replica.is_draining or not replica.is_healthy:
            return False
        return replica.opened_at is None or self._may_be_tried(replica)

    def _has_room(self, replica: _Replica) -> bool:
        if replica.opened_at is not None:
            return not replica.in_trial
        return replica.uses < self._max_in_flight

    def _is_within_share(self, replica: _Replica) -> bool:
        return replica.uses < max(1, int(self._max_in_flight * self._share(replica)))

    def _may_be_tried(self, replica: _Replica) -> bool:
        if replica.opened_at is None:
            return False
        wait = self._settings.open_s * min(1 << (replica.trips - 1), _LONGEST)
        return self._clock() >= replica.opened_at + wait

    def _count(self, replica: _Replica, outcome: Outcome) -> None:
        if outcome == "neutral":
            return
        replica.outcomes.append(outcome == "failed")
        while len(replica.outcomes) > 2 * self._settings.failures:
            replica.outcomes.popleft()
        if sum(replica.outcomes) >= self._settings.failures:
            self._open(replica)

    def _conclude(self, replica: _Replica, outcome: Outcome) -> None:
        """The trial is over; one that tells nothing makes room for another."""
        match outcome:
            case "served":
                self._close(replica)
            case "failed":
                self._open(replica)
            case "neutral":
                replica.in_trial = False

    def _open(self, replica: _Replica) -> None:
        replica.opened_at = self._clock()
        replica.trips = min(replica.trips + 1, 32)
        replica.in_trial = False
        replica.outcomes.clear()

    def _close(self, replica: _Replica) -> None:
        replica.opened_at = None
        replica.trips = 0
        replica.in_trial = False
        replica.outcomes.clear()
        replica.since = self._clock()

    def _share(self, replica: _Replica) -> float:
        """How much of its work a replica does: 1, or less for a while after it came back."""
        if self._settings.slow_start_s == 0:
            return 1.0
        grown = (self._clock() - replica.since) / self._settings.slow_start_s
        return min(1.0, _COLD + (1 - _COLD) * grown)
