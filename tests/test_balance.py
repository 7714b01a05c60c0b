from __future__ import annotations

import heapq
import random
from dataclasses import dataclass, field

import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, precondition, rule

from proxy.balance import Balancer, BalanceSettings, Full, Nobody, Picked

SETTINGS = BalanceSettings(affinity_tokens=1000, failures=3, open_s=5, slow_start_s=20)
PLACES = 4
BOTH = ("a", "b")


@dataclass
class Clock:
    """Time that passes when a test says so; seconds."""

    now: float = 100.0

    def __call__(self) -> float:
        return self.now


@pytest.fixture
def clock() -> Clock:
    return Clock()


@pytest.fixture
def balancer(clock: Clock) -> Balancer:
    balancer = Balancer(SETTINGS, PLACES, clock)
    balancer.keep(BOTH)
    return balancer


def pick(
    balancer: Balancer, prefix: str = "p", adapter: str = "api-v1", tokens: int = 100
) -> Picked:
    picked = balancer.choose(BOTH, tokens, (adapter, prefix))
    assert isinstance(picked, Picked)
    return picked


def fail(balancer: Balancer, id: str, times: int) -> None:
    for _ in range(times):
        picked = balancer.choose([id], 1, ("x", "x"))
        assert isinstance(picked, Picked)
        balancer.end(picked, "failed")


# ---------------------------------------------------------------- choice


def test_fewest_tokens_in_flight_win(balancer: Balancer):
    first = pick(balancer, adapter="one-v1", tokens=3000)
    second = pick(balancer, adapter="two-v1", tokens=100)
    third = pick(balancer, adapter="three-v1", tokens=100)

    assert first.id != second.id == third.id


def test_idle_replicas_take_turns(balancer: Balancer):
    for adapter in ("one-v1", "two-v1"):
        balancer.end(pick(balancer, adapter=adapter), "served")

    assert pick(balancer, adapter="three-v1").id == "a"
    assert pick(balancer, adapter="four-v1").id == "b"


def test_same_adapter_goes_where_it_ran_last(balancer: Balancer):
    balancer.end(pick(balancer, adapter="one-v1"), "served")
    home = pick(balancer, adapter="two-v1")
    balancer.end(home, "served")

    assert home.id == "b"
    assert pick(balancer, prefix="another", adapter="two-v1").id == "b"


def test_same_prefix_goes_where_it_ran_last_rather_than_where_its_adapter_did(balancer: Balancer):
    first = pick(balancer, prefix="first")
    other = balancer.choose([{"a": "b", "b": "a"}[first.id]], 100, ("api-v1", "second"))
    assert isinstance(other, Picked)
    balancer.end(first, "served")
    balancer.end(other, "served")

    assert pick(balancer, prefix="first").id == first.id


def test_affinity_does_not_beat_a_longer_queue(balancer: Balancer):
    home = pick(balancer, tokens=500)
    same = pick(balancer, tokens=501)
    other = pick(balancer, tokens=501)

    assert home.id == same.id != other.id


def test_no_affinity_where_it_is_switched_off(clock: Clock):
    balancer = Balancer(BalanceSettings(affinity_tokens=0), PLACES, clock)
    balancer.keep(BOTH)

    assert pick(balancer).id != pick(balancer).id


def test_replicas_whose_places_are_taken_are_full(balancer: Balancer):
    taken = [pick(balancer) for _ in range(8)]
    assert balancer.choose(BOTH, 1, ("x", "x")) == Full()

    balancer.end(taken[0], "served")

    assert pick(balancer).id == taken[0].id


def test_only_those_named_are_chosen(balancer: Balancer):
    assert isinstance(balancer.choose(["b"], 1, ("x", "x")), Picked)
    assert balancer.choose([], 1, ("x", "x")) == Nobody()
    assert balancer.choose(["gone"], 1, ("x", "x")) == Nobody()


def test_draining_replica_gets_nothing_new_and_keeps_what_it_has(balancer: Balancer):
    taken = pick(balancer)
    balancer.set_draining(taken.id, True)

    assert pick(balancer).id != taken.id
    assert balancer.in_flight(taken.id) == 1
    assert balancer.state(taken.id) == "draining"

    balancer.end(taken, "served")
    assert balancer.in_flight(taken.id) == 0


def test_place_on_a_replica_that_went_and_came_again_is_not_freed_twice(balancer: Balancer):
    taken = pick(balancer)
    balancer.keep([])
    balancer.keep(BOTH)

    balancer.end(taken, "served")

    assert balancer.in_flight(taken.id) == 0


# ---------------------------------------------------------------- breaker


def test_failures_stop_a_replica(balancer: Balancer):
    fail(balancer, "a", 3)

    assert balancer.state("a") == "open"
    assert balancer.choose(["a"], 1, ("x", "x")) == Nobody()
    assert pick(balancer).id == "b"


def test_few_failures_among_many_answers_do_not(balancer: Balancer):
    for _ in range(10):
        fail(balancer, "a", 1)
        for _ in range(2):
            picked = balancer.choose(["a"], 1, ("x", "x"))
            assert isinstance(picked, Picked)
            balancer.end(picked, "served")

    assert balancer.state("a") == "up"


def test_clients_that_leave_never_stop_a_replica(balancer: Balancer):
    for _ in range(100):
        balancer.end(pick(balancer), "neutral")

    assert {balancer.state(id) for id in BOTH} == {"up"}


def test_stopped_replica_is_tried_with_one_request(balancer: Balancer, clock: Clock):
    fail(balancer, "a", 3)
    clock.now += 5

    assert balancer.state("a") == "half_open"
    trial = balancer.choose(["a"], 1, ("x", "x"))
    assert isinstance(trial, Picked)
    assert balancer.choose(["a"], 1, ("x", "x")) == Full()

    balancer.end(trial, "served")
    assert balancer.state("a") == "slow"


def test_trial_that_fails_doubles_the_wait(balancer: Balancer, clock: Clock):
    fail(balancer, "a", 3)
    clock.now += 5
    fail(balancer, "a", 1)

    clock.now += 9.9
    assert balancer.state("a") == "open"
    clock.now += 0.2
    assert balancer.state("a") == "half_open"


def test_trial_that_tells_nothing_makes_room_for_another(balancer: Balancer, clock: Clock):
    fail(balancer, "a", 3)
    clock.now += 5
    trial = balancer.choose(["a"], 1, ("x", "x"))
    assert isinstance(trial, Picked)

    balancer.end(trial, "neutral")

    assert isinstance(balancer.choose(["a"], 1, ("x", "x")), Picked)


def test_what_was_under_way_when_the_breaker_opened_does_not_end_the_trial(
    balancer: Balancer, clock: Clock
):
    old = balancer.choose(["a"], 1, ("x", "x"))
    assert isinstance(old, Picked)
    fail(balancer, "a", 3)
    clock.now += 5
    assert isinstance(balancer.choose(["a"], 1, ("x", "x")), Picked)

    balancer.end(old, "served")

    assert balancer.choose(["a"], 1, ("x", "x")) == Full()


def test_health_check_that_fails_stops_a_replica_and_one_that_passes_starts_it_slowly(
    balancer: Balancer, clock: Clock
):
    balancer.set_healthy("a", False)
    assert balancer.state("a") == "down"
    assert balancer.choose(["a"], 1, ("x", "x")) == Nobody()

    balancer.set_healthy("a", True)

    assert balancer.state("a") == "slow"
    clock.now += 20
    assert balancer.state("a") == "up"


def test_replica_that_came_back_is_spared_while_another_has_room(balancer: Balancer):
    balancer.set_healthy("a", False)
    balancer.set_healthy("a", True)

    ids = [pick(balancer, prefix=str(number), tokens=1).id for number in range(8)]

    assert ids == ["a", "b", "b", "b", "b", "a", "a", "a"]


def test_health_that_goes_on_does_not_close_the_breaker(balancer: Balancer):
    fail(balancer, "a", 3)

    balancer.set_healthy("a", True)

    assert balancer.state("a") == "open"


def test_replica_that_joins_later_starts_slowly(balancer: Balancer):
    balancer.keep([*BOTH, "c"])

    assert [balancer.state(id) for id in "abc"] == ["up", "up", "slow"]


# ---------------------------------------------------------------- laws


class Anything(RuleBasedStateMachine):
    """Whatever happens in whatever order, the laws of the balancer hold."""

    def __init__(self) -> None:
        super().__init__()
        self.clock = Clock()
        self.balancer = Balancer(SETTINGS, PLACES, self.clock)
        self.balancer.keep("abc")
        self.taken: list[Picked] = []

    @rule(tokens=st.integers(1, 5000), adapter=st.sampled_from("xyz"), prefix=st.sampled_from("pq"))
    def ask(self, tokens: int, adapter: str, prefix: str) -> None:
        states = {id: self.balancer.state(id) for id in "abc"}
        usable = {id for id, state in states.items() if state in ("up", "slow", "half_open")}
        free = [id for id in usable if self.has_room(id)]
        calm = [id for id in free if self.is_within_share(id)]
        loads = {id: self.load(id) for id in calm or free}
        choice = self.balancer.choose("abc", tokens, (adapter, prefix))
        match choice:
            case Picked(id=id):
                assert loads[id] <= min(loads.values()) + min(tokens, 1000)
                self.taken.append(choice)
            case Full():
                assert usable and not loads
            case Nobody():
                assert not usable

    @precondition(lambda self: self.taken)
    @rule(data=st.data(), outcome=st.sampled_from(["served", "failed", "neutral"]))
    def end(self, data: st.DataObject, outcome: str) -> None:
        self.balancer.end(self.taken.pop(data.draw(st.integers(0, len(self.taken) - 1))), outcome)

    @rule(id=st.sampled_from("abc"), is_healthy=st.booleans())
    def check(self, id: str, is_healthy: bool) -> None:
        self.balancer.set_healthy(id, is_healthy)

    @rule(id=st.sampled_from("abc"), is_draining=st.booleans())
    def drain(self, id: str, is_draining: bool) -> None:
        self.balancer.set_draining(id, is_draining)

    @rule(seconds=st.floats(0, 30))
    def wait(self, seconds: float) -> None:
        self.clock.now += seconds

    @invariant()
    def places_are_neither_lost_nor_exceeded(self) -> None:
        for id in "abc":
            held = [picked for picked in self.taken if picked.id == id]
            assert self.balancer.in_flight(id) == len(held) <= PLACES

    def load(self, id: str) -> float:
        return self.balancer._load(id)

    def has_room(self, id: str) -> bool:
        return self.balancer._has_room(self.balancer._replicas[id])

    def is_within_share(self, id: str) -> bool:
        return self.balancer._is_within_share(self.balancer._replicas[id])


TestAnything = Anything.TestCase


@given(seed=st.integers(0, 1000), shares=st.integers(2, 5))
def test_every_place_is_given_back_whatever_the_order(seed: int, shares: int):
    ids = [f"r{number}" for number in range(shares)]
    chance = random.Random(seed)
    balancer = Balancer(SETTINGS, PLACES, Clock())
    balancer.keep(ids)
    choices = [balancer.choose(ids, chance.randrange(1, 999), ("x", "x")) for _ in range(30)]
    taken = [choice for choice in choices if isinstance(choice, Picked)]
    chance.shuffle(taken)

    for picked in taken:
        balancer.end(picked, "neutral")

    assert [balancer._load(id) for id in ids] == [0] * shares


# ---------------------------------------------------------------- simulation


@dataclass
class Town:
    """Replicas of different speed under requests that come at a steady pace; no sockets."""

    speeds: dict[str, float]
    """Tokens a second and request."""
    clock: Clock = field(default_factory=Clock)
    served: dict[str, int] = field(default_factory=dict)
    failed: int = 0
    turned_away: int = 0
    dies: tuple[str, float, float] | None = None
    """A replica that fails each request between two times, in seconds from the start."""

    def run(self, seconds: float, gap: float, places: int) -> None:
        balancer = Balancer(BalanceSettings(), places, self.clock)
        balancer.keep(self.speeds)
        chance, start = random.Random(1), self.clock.now
        ends: list[tuple[float, int, Picked]] = []
        for number in range(int(seconds / gap)):
            self.clock.now = start + number * gap
            while ends and ends[0][0] <= self.clock.now:
                self._end(balancer, heapq.heappop(ends)[2], self.clock.now - start)
            tokens = chance.randrange(100, 900)
            choice = balancer.choose(self.speeds, tokens, (f"a{number % 5}", f"p{number % 50}"))
            if isinstance(choice, Picked):
                is_dead = self._is_dead(choice.id, self.clock.now - start)
                lasts = 0.01 if is_dead else tokens / self.speeds[choice.id]
                heapq.heappush(ends, (self.clock.now + lasts, number, choice))
            else:
                self.turned_away += 1

    def _end(self, balancer: Balancer, picked: Picked, now: float) -> None:
        is_dead = self._is_dead(picked.id, now)
        balancer.end(picked, "failed" if is_dead else "served")
        self.failed += is_dead
        self.served[picked.id] = self.served.get(picked.id, 0) + (not is_dead)

    def _is_dead(self, id: str, now: float) -> bool:
        return self.dies is not None and self.dies[0] == id and self.dies[1] <= now < self.dies[2]


def test_work_is_shared_by_speed():
    town = Town({"slow": 50, "fast": 100})

    town.run(600, 0.2, 32)

    assert town.turned_away == 0
    assert 1.5 < town.served["fast"] / town.served["slow"] < 2.5


def test_dead_replica_costs_few_requests_and_is_used_again():
    town = Town({"a": 100, "b": 100}, dies=("a", 100, 200))

    town.run(600, 0.1, 64)

    # Without a breaker half of a thousand would fail: what is in flight, and then one each trial.
    assert town.failed < 50
    assert town.turned_away == 0
    assert town.served["a"] > 1500


def test_half_of_the_places_are_not_for_those_who_can_wait(balancer: Balancer):
    first = pick(balancer)
    spared = [balancer.is_spared([first.id])]
    second = balancer.choose([first.id], 100, ("api-v1", "p"))
    spared.append(balancer.is_spared([first.id]))
    balancer.end(second, "served")
    spared.append(balancer.is_spared([first.id]))

    assert spared == [True, False, True]


def test_one_that_is_not_well_spares_nothing(balancer: Balancer):
    balancer.set_healthy("a", False)
    fail(balancer, "b", 3)

    assert not balancer.is_spared(BOTH)
