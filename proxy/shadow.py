"""The same request, asked of another backend, out of the client's sight.

    client ◀── answer ── gateway ── recording ──▶ recorder ──▶ Exchange ┐
                            │ afterwards                                 ├─ a pair
                            ▼                                            │
              sampled? room? ──▶ queue ──▶ worker ──▶ backend ──▶ Shadowed┘
                   └──▶ dropped, and counted by reason

A lane (shadow_lane.py) for each domain that routes.yaml has shadowed, and one for each domain that
may get a candidate, which is asked there in its stage `shadow`.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable, Mapping
from concurrent.futures import ThreadPoolExecutor
from functools import partial

from proxy.budget import Budget
from proxy.catalog import Catalog
from proxy.comparison import Shadow
from proxy.counting import Counting
from proxy.domains import Domain
from proxy.recorder import Recorder
from proxy.shadow_lane import Answered, Lane, LaneStatus, Parts, Wanted

_TRIED_AT_ONCE = 2
"""Shadows of a candidate at a time. Chosen: it is in no hurry, and the engine is its clients'."""


class Shadows:
    """The lanes of all domains. Made once."""

    def __init__(
        self,
        domains: Mapping[str, Domain],
        catalog: Catalog,
        recorder: Recorder,
        counting: Counting | None = None,
        budget: Budget | None = None,
        clock: Callable[[], float] = time.time,
        places: Mapping[str, str] | None = None,
    ) -> None:
        """`budget`: needed where a domain has one; without, such a domain is not shadowed.
        `places`: domain → the backend that a candidate of it would answer on."""
        # Files and answers are read in a thread of our own: the common ones are the requests'.
        self._thread = ThreadPoolExecutor(1, thread_name_prefix="shadow")
        self._catalog = catalog
        parts = Parts(catalog, recorder, counting or Counting(), budget, clock, self._thread)
        self.lanes = {
            name: Lane(name, domain.shadow, parts, partial(_champion, catalog, name, domain.shadow))
            for name, domain in domains.items()
            if domain.shadow is not None
        }
        self._trials = {
            name: Lane(
                name,
                Shadow(to=backend, share=1, max_in_flight=_TRIED_AT_ONCE),
                parts,
                partial(_candidate, catalog, name),
            )
            for name, backend in (places or {}).items()
        }

    def want(self, domain: str) -> bool:
        """Whether any request of the domain is to be shadowed now."""
        canary = self._catalog.canary(domain)
        return domain in self.lanes or (canary is not None and canary.shadow > 0)

    def offer(self, answered: Answered) -> None:
        """Shadow this request if its domain and conversation are; never waits, never raises."""
        for lanes in (self.lanes, self._trials):
            lane = lanes.get(answered.route.domain)
            if lane is None:
                continue
            try:
                lane.offer(answered)
            except Exception:
                lane.fail()

    async def run(self) -> None:
        """Shadow until cancelled; what is under way then is dropped."""
        try:
            async with asyncio.TaskGroup() as tasks:
                for lane in self._all():
                    for _ in range(lane.settings.max_in_flight):
                        tasks.create_task(lane.work(), name=f"shadow {lane.domain}")
        finally:
            for lane in self._all():
                lane.stop()
            self._thread.shutdown(wait=False, cancel_futures=True)

    def status(self) -> dict[str, LaneStatus]:
        """The lane of each domain that routes.yaml has shadowed."""
        return {name: lane.status() for name, lane in self.lanes.items()}

    def trials(self) -> dict[str, LaneStatus]:
        """The lane of each domain that had a candidate to ask since the process started."""
        return {name: lane.status() for name, lane in self._trials.items() if lane.seen}

    def _all(self) -> list[Lane]:
        return [*self.lanes.values(), *self._trials.values()]


def _champion(catalog: Catalog, domain: str, settings: Shadow) -> Wanted:
    return Wanted(catalog.champion(settings.to, domain), settings.share)


def _candidate(catalog: Catalog, domain: str) -> Wanted | None:
    """The domain's candidate in its stage `shadow`; None where there is none."""
    canary = catalog.canary(domain)
    if canary is None or not canary.shadow:
        return None
    return Wanted(canary.adapter, canary.shadow)
