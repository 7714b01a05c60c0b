"""What several requests share, under any order of events: a seed is one order.

    python -m tests.harden.interleavings [--seeds 10000] [--only limiter]

Balancer and breaker, limiter and ledger, recorder, catalog, and the registry's names, which several
processes change: after each step, and at the end, the laws hold. A failure names its seed, which
fails again.
"""

from __future__ import annotations

import argparse
import asyncio
import os
import random
import sys
import threading
import time
from collections import Counter
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import structlog

from proxy.balance import Balancer, BalanceSettings, Full, Nobody, Picked
from proxy.catalog import Catalog, Champions
from proxy.domains import Domain
from proxy.errors import RecordUnavailable, TooManyRequests
from proxy.limits import Limits
from proxy.logs import Facts
from proxy.protocol import champions
from proxy.protocol.champions import Alias, Change, Conflict
from proxy.protocol.openai import ChatRequest
from proxy.protocol.segments import Record
from proxy.protocol.store import DirectoryStore, Held
from proxy.quotas.base import Who
from proxy.quotas.memory import MemoryLedger
from proxy.quotas.settings import Quota
from proxy.recorder import Recorder
from proxy.routing import Route
from proxy.sinks.memory import MemorySink
from tests.engines.fronting import shipped
from tests.serving import Engine
from tests.test_recorder import recording

PLACES = 3


class Clock:
    """Seconds that go on, sometimes in leaps."""

    now = 1000.0

    def __call__(self) -> float:
        return self.now


# ---------------------------------------------------------------- balancer and breaker


def balancer(seed: int) -> None:
    """No place is lost or given twice; nobody down, draining or open gets work; one trial."""
    chance, clock = random.Random(seed), Clock()
    it = Balancer(BalanceSettings(failures=2, open_s=3, slow_start_s=5), PLACES, clock)
    there = ["a", "b", "c"]
    it.keep(there)
    taken: list[Picked] = []
    for _ in range(120):
        clock.now += chance.choice([0, 0.1, 1, 7, 100])
        match chance.randrange(6):
            case 0:
                there = chance.sample("abcd", chance.randint(1, 4))
                it.keep(there)
            case 1:
                it.set_healthy(chance.choice(there), chance.random() < 0.8)
            case 2:
                it.set_draining(chance.choice(there), chance.random() < 0.3)
            case 3 | 4:
                _choose(it, there, taken, chance)
            case _ if taken:
                outcome = chance.choice(["served", "failed", "neutral"])
                it.end(taken.pop(chance.randrange(len(taken))), outcome)
        for id in there:
            assert 0 <= it.in_flight(id) <= PLACES
    for picked in taken:
        it.end(picked, "neutral")
    assert [it.in_flight(id) for id in there] == [0] * len(there)


def _choose(it: Balancer, there: Sequence[str], taken: list[Picked], chance: random.Random) -> None:
    before = {id: (it.state(id), it.in_flight(id)) for id in there}
    usable = {id for id, (state, _) in before.items() if state in ("up", "slow", "half_open")}
    choice = it.choose(there, chance.randint(1, 5000), (chance.choice("xy"), chance.choice("pq")))
    match choice:
        case Picked(id=id):
            assert id in usable
            assert before[id][1] < PLACES or choice.is_trial
            # A replica whose breaker is open has one trial at a time.
            assert not (choice.is_trial and before[id][0] != "half_open")
            taken.append(choice)
        case Full():
            assert usable
        case Nobody():
            assert not usable


# ---------------------------------------------------------------- limiter


def limiter(seed: int) -> None:
    asyncio.run(_limiter(random.Random(seed)))


async def _limiter(chance: random.Random) -> None:
    """Never more than there are slots; all are given back, whoever is cancelled when."""
    ledger = MemoryLedger()
    limits = Limits(4, [Quota(concurrent=2)], ledger)
    inside: Counter[str] = Counter()

    async def request(name: str, steps: int) -> None:
        with suppress(TooManyRequests):
            async with limits.admit(Who("t", name, "d"), b"", Facts(request_id="r")):
                inside[name] += 1
                assert inside[name] <= 2 and inside.total() <= 4 == limits._max
                try:
                    for _ in range(steps):
                        await asyncio.sleep(0)
                finally:
                    inside[name] -= 1

    counting = asyncio.ensure_future(limits.run())
    tasks: list[asyncio.Task[None]] = []
    for _ in range(30):
        tasks.append(asyncio.ensure_future(request(chance.choice("ab"), chance.randrange(6))))
        for _ in range(chance.randrange(3)):
            await asyncio.sleep(0)
        if chance.random() < 0.3:
            chance.choice(tasks).cancel()
    ended = await asyncio.gather(*tasks, return_exceptions=True)
    counting.cancel()
    await asyncio.wait([counting])
    wrong = [e for e in ended if isinstance(e, Exception)]
    assert not wrong, wrong
    assert limits.in_flight == 0 and not limits._held and not ledger._slots


# ---------------------------------------------------------------- recorder


class Faulty(MemorySink):
    """Fails by chance: for a while as a full disk does, or for one record for ever."""

    def __init__(self, chance: random.Random) -> None:
        super().__init__()
        self._chance = chance
        self.poisoned = {f"id-{n}" for n in range(200) if chance.random() < 0.05}

    def write(self, records: Sequence[Record]) -> None:
        if self._chance.random() < 0.2:
            raise OSError(28, "No space left on device")
        if any(record.id in self.poisoned for record in records):
            raise ValueError("a record that cannot be written")
        super().write(records)


def recorder(seed: int) -> None:
    asyncio.run(_recorder(random.Random(seed)))


async def _recorder(chance: random.Random) -> None:
    """Each recording is written once, dropped or lost; and what is said to be kept is there."""
    sink = Faulty(chance)
    it = Recorder(sink, max_waiting=12, sync_s=0.0, retry_s=0.0)
    running = asyncio.ensure_future(it.run())
    kept: list[str] = []
    asked: list[asyncio.Task[None]] = []

    async def keep(id: str) -> None:
        with suppress(RecordUnavailable):
            await it.keep(recording(id), patience=5)
            kept.append(id)

    put = 0
    for number in range(chance.randint(5, 40)):
        if chance.random() < 0.25:
            asked.append(asyncio.ensure_future(keep(f"id-{number}")))
        else:
            put += 1
            it.put(recording(f"id-{number}"))
        if chance.random() < 0.5:
            await asyncio.sleep(0)
    await asyncio.gather(*asked)
    if chance.random() < 0.5:
        await asyncio.sleep(0)
    running.cancel()
    await asyncio.wait([running])
    written = Counter(exchange.id for exchange in sink.exchanges)
    assert not written or max(written.values()) == 1
    assert len(written) == it.written and it.waiting == 0
    assert it.written + it.dropped + it.lost == put + len(asked)
    assert set(kept) <= set(written)


# ---------------------------------------------------------------- catalog


def catalog(seed: int) -> None:
    """A plan names one adapter, which was the champion when it was made, whatever flips then."""
    chance = random.Random(seed)
    adapters = list(shipped().by_id.values())
    local, cloud = Engine("local", []), Engine("cloud", [])
    it = Catalog({"local": local, "cloud": cloud}, {"local": Champions({}, {})})
    route = Route("api", Domain(plan=["local", "cloud"]), "exact")
    request = ChatRequest(model="m", messages=[])
    made: list[tuple[Any, Any]] = []
    for _ in range(60):
        if chance.random() < 0.4:
            by_domain = {"api": chance.choice(adapters)} if chance.random() < 0.8 else {}
            it.flip("local", Champions(by_domain, {a.id: a for a in by_domain.values()}))
        plan = it.plan(route, request)
        made.append((plan, it.champion("local", "api")))
        for one, champion in made:
            assert one.candidates[0].adapter is champion and len(one.candidates) == 2


# ---------------------------------------------------------------- registry

WRITERS = 3
CHANGES = 3
IN_MEMORY = "/dev/shm" if os.path.isdir("/dev/shm") else None
"""Where a sync costs nothing: what is tried is the order, and not the disk."""


class Turns:
    """Threads that go on one at a time, in the order that a seed says."""

    def __init__(self, chance: random.Random, alive: int) -> None:
        self._chance = chance
        self._alive = set(range(alive))
        self._waiting: set[int] = set()
        self._now: int | None = None
        self._changed = threading.Condition()

    def wait(self, me: int) -> None:
        with self._changed:
            self._waiting.add(me)
            self._choose()
            self._changed.wait_for(lambda: self._now == me)
            self._waiting.discard(me)

    def end(self, me: int) -> None:
        with self._changed:
            self._alive.discard(me)
            self._choose()

    def _choose(self) -> None:
        if self._alive and self._waiting == self._alive:
            self._now = self._chance.choice(sorted(self._alive))
            self._changed.notify_all()


class Died(BaseException):
    """The process of a writer was killed."""


class Stepwise(DirectoryStore):
    """A directory whose reader or writer waits for its turn before each look and each change."""

    def __init__(self, directory: Path, step: Callable[[], None]) -> None:
        super().__init__(directory)
        self._step = step

    def read(self, path: str, limit: int) -> Held | None:
        self._step()
        return super().read(path, limit)

    def paths(self, folder: str) -> list[str]:
        self._step()
        return super().paths(folder)

    def create(self, path: str, content: bytes) -> None:
        self._step()
        super().create(path, content)

    def swap(self, path: str, content: bytes, tag: str | None) -> None:
        self._step()
        super().swap(path, content, tag)


def registry(seed: int) -> None:
    """Of two who change a name at once one wins; none that won is lost, whoever dies when."""
    chance = random.Random(seed)
    turns, made = Turns(chance, WRITERS), list[Change]()
    risk = chance.choice([0.0, 0.03])

    def writer(me: int, directory: Path) -> bool:
        def step() -> None:
            turns.wait(me)
            if chance.random() < risk:
                raise Died

        store = Stepwise(directory, step)
        try:
            for _ in range(CHANGES):
                there = champions.read(store)
                domain, id = chance.choice("ab"), f"v{chance.randrange(9)}"
                with suppress(Conflict):
                    changed = champions.change(
                        store, domain, Alias(champion=id), there.revision, "", who=str(me)
                    )
                    assert changed.last is not None
                    made.append(changed.last)
        except Died:
            return False
        finally:
            turns.end(me)
        return True

    with TemporaryDirectory(dir=IN_MEMORY) as name, ThreadPoolExecutor(WRITERS) as threads:
        there = Path(name)
        all_lived = all(list(threads.map(writer, range(WRITERS), [there] * WRITERS)))
        _check_history(champions.read(there), champions.history(there), made, all_lived)


def _check_history(
    last: champions.Champions, history: Sequence[Change], made: Sequence[Change], is_all: bool
) -> None:
    """Each revision is one change, of what the one before it left."""
    assert [one.revision for one in history] == list(range(1, len(history) + 1))
    assert sorted(made, key=lambda one: one.revision) == [one for one in history if one in made]
    assert len(made) == len(history) or (len(made) < len(history) and not is_all)
    state: dict[str, Alias | None] = {}
    for one in history:
        assert one.before == state.get(one.domain)
        state[one.domain] = one.after
    assert last.domains == state


KINDS: dict[str, Callable[[int], None]] = {
    "balancer and breaker": balancer,
    "limiter": limiter,
    "recorder": recorder,
    "catalog": catalog,
    "registry's names": registry,
}


def main() -> None:
    given = argparse.ArgumentParser(description=__doc__)
    given.add_argument("--seeds", type=int, default=10_000)
    given.add_argument("--only", action="append", choices=KINDS)
    asked = given.parse_args()
    structlog.configure(wrapper_class=structlog.make_filtering_bound_logger(50))
    print("| shared by requests | orders tried | failed | took |\n|---|---|---|---|")
    failures = 0
    for name in asked.only or KINDS:
        run = KINDS[name]
        began, failed = time.monotonic(), list[int]()
        for seed in range(asked.seeds):
            try:
                run(seed)
            except Exception as error:
                failed.append(seed)
                print(f"  {name}, seed {seed}: {type(error).__name__}: {error}", file=sys.stderr)
        took = time.monotonic() - began
        print(f"| {name} | {asked.seeds} | {len(failed)} | {took:.0f} s |", flush=True)
        failures += len(failed)
    sys.exit(failures > 0)


if __name__ == "__main__":
    main()
