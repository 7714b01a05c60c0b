"""What stands on each page: questions to the proxy and its record, and the template that tells."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Mapping
from typing import NamedTuple

import msgspec

from proxy.catalog import Catalog
from proxy.config import Config
from proxy.dashboard import bundles, runs
from proxy.dashboard.entrance import Visitor
from proxy.dashboard.frame import Frame
from proxy.dashboard.live import Lookout
from proxy.dashboard.questions import (
    Agreements,
    Look,
    Refusal,
    Savings,
    Search,
    SearchFound,
    Seen,
    SeenFound,
    Span,
    Traffic,
)
from proxy.dashboard.reading import Reading, Reply
from proxy.errors import NotFound
from proxy.protocol.visible import escaped

Query = Mapping[str, str]

HOURS = {1: "hour", 6: "6 hours", 24: "day", 168: "week", 720: "30 days"}
"""Spans that a page can be asked for."""
_DAY, _MONTH = 24, 720
_STEP = 10
"""Seconds by which spans end: who asks soon after another gets what that one got."""
_LONGEST = 200
"""Letters of a field of a search."""
_FARTHEST = 200
"""Pages of a search."""


class Shown(NamedTuple):
    """A page, and its status."""

    content: bytes
    status: int = 200


class Pages:
    """Makes them. Made once."""

    def __init__(
        self,
        config: Config,
        catalog: Catalog,
        lookout: Lookout,
        reading: Reading,
        frame: Frame,
    ) -> None:
        self._config = config
        self._catalog = catalog
        self._lookout = lookout
        self._reading = reading
        self._frame = frame

    # ------------------------------------------------------------ now

    async def overview(self, visitor: Visitor, token: str, query: Query) -> Shown:
        """What is answered now, and what the record says of the last hours."""
        return Shown(
            self._frame.page(
                "overview.html.jinja",
                visitor,
                token,
                live=await self._lookout.live(),
                hours=_hours(query, _DAY),
                hours_of=HOURS,
            )
        )

    async def live(self, visitor: Visitor, token: str, query: Query) -> Shown:
        """The figures of now, for the page to put in the place of those that it has."""
        return Shown(self._frame.part("live.html.jinja", live=await self._lookout.live()))

    async def traffic(self, visitor: Visitor, token: str, query: Query) -> Shown:
        """What the record says of the last hours, to be put into the overview."""
        hours = _hours(query, _DAY)
        found = await self._reading.ask(Traffic(span=_span(hours)))
        values = _found_or_refused(found)
        return Shown(self._frame.part("traffic.html.jinja", hours=hours, hours_of=HOURS, **values))

    async def savings(self, visitor: Visitor, token: str, query: Query) -> Shown:
        """What answering at home saved, to be put into the overview."""
        found = await self._reading.ask(Savings(span=_span(_hours(query, _DAY))))
        return Shown(self._frame.part("savings.html.jinja", **_found_or_refused(found)))

    # ------------------------------------------------------------ how well

    async def agreement(self, visitor: Visitor, token: str, query: Query) -> Shown:
        """How often home and the cloud say the same."""
        hours = _hours(query, _MONTH)
        found = await self._reading.ask(Agreements(span=_span(hours)))
        return Shown(
            self._frame.page(
                "agreement.html.jinja",
                visitor,
                token,
                hours=hours,
                hours_of=HOURS,
                **_found_or_refused(found),
            )
        )

    async def adapters(self, visitor: Visitor, token: str, query: Query) -> Shown:
        """Who answers for which domain, and what each adapter was made from."""
        known = self._catalog.adapters
        shelf = await asyncio.to_thread(bundles.read, self._config, self._catalog, known)
        return Shown(self._frame.page("adapters.html.jinja", visitor, token, shelf=shelf))

    async def runs(self, visitor: Visitor, token: str, query: Query) -> Shown:
        """The trainer's runs."""
        place = self._config.dashboard.runs
        found = None if place is None else await asyncio.to_thread(runs.read, place)
        return Shown(self._frame.page("runs.html.jinja", visitor, token, place=place, found=found))

    async def run(self, visitor: Visitor, token: str, query: Query) -> Shown:
        """One of them: its steps, and the gate's verdict."""
        place = self._config.dashboard.runs
        domain, id = query.get("domain", ""), query.get("id", "")
        found = None if place is None else await asyncio.to_thread(runs.one, place, domain, id)
        if found is None:
            raise NotFound("There is no such run, or its manifest cannot be read.")
        run, verdict = found
        return Shown(self._frame.page("run.html.jinja", visitor, token, run=run, verdict=verdict))

    # ------------------------------------------------------------ what was said

    async def exchanges(self, visitor: Visitor, token: str, query: Query) -> Shown:
        """The last exchanges, searched."""
        found = await self._reading.ask(_search(query))
        values = _found_or_refused(found) | self._choices(query, found)
        if query.get("part") == "list":
            return Shown(self._frame.part("exchange_list.html.jinja", **values))
        return Shown(self._frame.page("exchanges.html.jinja", visitor, token, **values))

    def _choices(self, query: Query, found: Reply) -> dict[str, object]:
        asked = {name: query.get(name, "")[:_LONGEST] for name in (*_FIELDS, "text")}
        return {
            "asked": asked | {"hours": str(_hours(query, _DAY))},
            "number": _number(query),
            "domains": list(self._config.domains),
            "backends": list(self._config.backends),
            "hours_of": HOURS,
            "n": len(found.rows) if isinstance(found, SearchFound) else 0,
        }

    async def exchange(self, visitor: Visitor, token: str, query: Query) -> Shown:
        """One of them, side by side, with a form to judge it."""
        seen = await self.seen(query)
        given = query.get("given", "")[:64]
        return self.judged(visitor, token, seen, told=given)

    async def seen(self, query: Query) -> Seen:
        """The exchange that is named; raises NotFound, with the reason."""
        wanted = Look(id=query.get("id", "")[:256], tenant=query.get("tenant", "")[:256])
        found = await self._reading.ask(wanted)
        if isinstance(found, SeenFound) and found.seen is not None:
            return found.seen
        why = found.told if isinstance(found, Refusal) else "There is no such exchange any more."
        raise NotFound(why)

    def judged(
        self,
        visitor: Visitor,
        token: str,
        seen: Seen,
        *,
        told: str = "",
        problem: str = "",
        form: Query | None = None,
        status: int = 200,
    ) -> Shown:
        """The page of an exchange; `told`: what was taken; `problem`: why a form was not."""
        return Shown(
            self._frame.page(
                "exchange.html.jinja",
                visitor,
                token,
                seen=seen,
                told=told,
                problem=problem,
                form=form or {},
                drafted=_draft(seen),
                can_judge=self._config.record is not None,
            ),
            status,
        )


_FIELDS = ("domain", "backend", "tenant", "outcome")


def _search(query: Query) -> Search:
    fields = {name: query.get(name, "")[:_LONGEST] for name in _FIELDS}
    return Search(
        span=_span(_hours(query, _DAY)),
        text=query.get("text", "").strip()[:_LONGEST],
        page=_number(query),
        **fields,
    )


def _number(query: Query) -> int:
    given = query.get("page", "0")
    return min(int(given), _FARTHEST) if given.isascii() and given.isdigit() else 0


def _hours(query: Query, default: int) -> int:
    given = query.get("hours", "")
    known = {str(hours): hours for hours in HOURS}
    return known.get(given, default)


def _span(hours: int) -> Span:
    until = (time.time() // _STEP + 1) * _STEP
    return Span(since=until - hours * 60 * 60, until=until)


def _found_or_refused(found: Reply) -> dict[str, object]:
    is_refused = isinstance(found, Refusal)
    return {"found": None if is_refused else found, "refusal": found if is_refused else None}


def _draft(seen: Seen) -> str:
    """What the correction's form begins with: the calls that the client got, or else another's."""
    sides = [side for side in seen.sides if side.calls]
    calls = next(
        (side.calls for side in sides if not side.is_shadow), sides[0].calls if sides else []
    )
    lines = [
        f'{{"name": {_json(one.name)}, "arguments": {escaped(one.arguments)}}}' for one in calls
    ]
    return "[" + ",\n ".join(lines) + "]" if lines else ""


def _json(text: str) -> str:
    return escaped(msgspec.json.encode(text).decode())
