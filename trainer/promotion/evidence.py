"""What the record says of a candidate and its champion: one Request for each that counts, and one
Pair for each that the candidate was asked out of its client's sight.

A request counts when chance had put it on a side (`assigned`), its client waited for the answer,
and the answer is no cached one. On a side it stays whoever answered in the end: a candidate whose
every answer the cloud has to replace is no good one.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from typing import NamedTuple, Protocol, TypeAlias, TypeVar

from msgspec.structs import replace

from proxy.protocol.agreement import compare
from proxy.protocol.exchange import CHAT, Answer, Attempt, Exchange
from proxy.protocol.feedback import Feedback
from proxy.protocol.openai import MalformedRequest, parse_request
from proxy.protocol.places import place
from proxy.protocol.shadowed import Shadowed
from trainer.errors import SourceError
from trainer.promotion.rules import Pair, Request, Side
from trainer.recipe.sources import ExchangesSettings
from trainer.sources.base import Skips
from trainer.sources.exchanges import open_shelf, translated

BASE = "base"
"""The champion of a domain that has none: what the proxy calls its side."""
_CACHE = "cache"
_TRIES = 3
"""Looks at a record that is compacted meanwhile. Chosen: one is enough, unless it is done twice."""

_T = TypeVar("_T")


class Watched(NamedTuple):
    """Whose requests are wanted."""

    domain: str
    candidate: str
    champion: str
    """Id of the adapter that answers beside the candidate, or BASE."""
    since: float
    """Seconds since the epoch."""
    by_caller: bool = False
    """Whether chance assigns callers rather than conversations."""

    def side(self, exchange: Exchange) -> Side | None:
        """Which side the request was on; None where it counts for none."""
        match exchange.assigned.partition(":"):
            case ("canary", _, id):
                return "candidate" if id == self.candidate else None
            case ("champion", _, id):
                return "champion" if id == self.champion else None
            case ("", _, _):
                return self._alone(exchange)
        return None

    def _alone(self, exchange: Exchange) -> Side | None:
        """Whose it was when nobody was beside him."""
        asked = own_name(exchange.attempts[0])
        if asked == self.champion:
            return "champion"
        return "candidate" if asked == self.candidate else None

    def id(self, side: Side) -> str:
        return self.candidate if side == "candidate" else self.champion

    def unit(self, exchange: Exchange) -> str:
        who = exchange.caller if self.by_caller else exchange.conversation or exchange.id
        return f"{exchange.tenant}\0{who}"


class Evidence(Protocol):
    """Where requests are read."""

    def requests(self, watched: Watched) -> list[Request]:
        """What is known of them now, oldest first; raises SourceError."""

    def pairs(self, watched: Watched) -> list[Pair]:
        """Those that the candidate was asked in a shadow, oldest first; raises SourceError."""


class Record:
    """The records of the proxies, each with its archive."""

    def __init__(self, records: Sequence[ExchangesSettings]) -> None:
        """Several where each proxy has a directory of its own."""
        self._records = records

    def requests(self, watched: Watched) -> list[Request]:
        """See Evidence."""
        return sorted(self._each(watched, _request), key=lambda one: one.at)

    def pairs(self, watched: Watched) -> list[Pair]:
        """See Evidence."""
        return sorted(self._each(watched, _pair), key=lambda one: one.candidate.at)

    def _each(self, watched: Watched, read: _Reading[_T]) -> list[_T]:
        return [one for settings in self._records for one in _patiently(settings, watched, read)]


def _patiently(settings: ExchangesSettings, watched: Watched, read: _Reading[_T]) -> list[_T]:
    for _ in range(_TRIES - 1):
        try:
            return _read(settings, watched, read)
        except SourceError as error:
            # A segment that was there a moment ago is a Parquet file by now.
            if not isinstance(error.__cause__, FileNotFoundError):
                raise
    return _read(settings, watched, read)


def _read(settings: ExchangesSettings, watched: Watched, read: _Reading[_T]) -> list[_T]:
    # A proxy makes the directory with its first exchange.
    if not place(settings.directory).is_dir():
        return []
    with translated(settings.directory):
        shelf = open_shelf(settings, Skips())
        exchanges = [
            one
            for one in shelf.exchanges(watched.since)
            if one.domain == watched.domain and _counts(one)
        ]
        told = _Told(exchanges, shelf.shadows(watched.since), shelf.feedback(watched.since))
        return [one for exchange in exchanges for one in read(exchange, watched, told)]


def _counts(exchange: Exchange) -> bool:
    is_chat = exchange.endpoint == CHAT and exchange.outcome != "client_aborted"
    return is_chat and bool(exchange.attempts) and exchange.attempts[0].backend != _CACHE


def _request(exchange: Exchange, watched: Watched, told: _Told) -> Iterator[Request]:
    side = watched.side(exchange)
    if side is None:
        return
    id = watched.id(side)
    own = [one for one in exchange.attempts if own_name(one) == id]
    yield Request(
        at=exchange.started_at,
        unit=watched.unit(exchange),
        side=side,
        is_drawn=exchange.assigned != "",
        is_ours=any(map(_is_whole, own)),
        seconds=exchange.total_s,
        invalid=any(one.outcome == "invalid" for one in own) if own else None,
        rescued=own_name(exchange.attempts[-1]) != id or exchange.outcome != "completed",
        disagreed=_disagreed(exchange, own, told.clouds(exchange)),
        disliked=told.disliked(exchange),
        tool_failed=told.tool_failed(exchange),
    )


def _pair(exchange: Exchange, watched: Watched, told: _Told) -> Iterator[Pair]:
    tried = told.shadow(exchange, watched.candidate)
    if tried is None:
        return
    own = [one for one in exchange.attempts if own_name(one) == watched.champion]
    clouds, served = told.clouds(exchange), exchange.attempts[-1].answer
    at, unit = exchange.started_at, watched.unit(exchange)
    yield Pair(
        candidate=Request(
            at=at,
            unit=unit,
            side="candidate",
            invalid=tried.outcome == "invalid",
            disagreed=_disagreed(exchange, [tried], clouds),
        ),
        champion=Request(
            at=at,
            unit=unit,
            side="champion",
            is_ours=any(map(_is_whole, own)),
            # A cloud's answer is taken as it is.
            invalid=any(one.outcome == "invalid" for one in own),
            disagreed=_disagreed(exchange, own, clouds),
        ),
        same=_agree(exchange, tried.answer, served),
    )


def own_name(attempt: Attempt) -> str | None:
    """Which of ours an attempt asked: an adapter's id or BASE; None for a cloud, which tells the
    model that answered."""
    return attempt.adapter or (BASE if attempt.model is None else None)


# ---------------------------------------------------------------- what else the record tells


class _Told:
    """What the record tells of exchanges elsewhere than in them."""

    def __init__(
        self,
        exchanges: Sequence[Exchange],
        shadows: Iterator[Shadowed],
        feedback: Iterator[Feedback],
    ) -> None:
        self._shadows: dict[tuple[str, str], list[Attempt]] = {}
        self._thumbs: dict[tuple[str, str], Feedback] = {}
        self._failed: dict[tuple[str, str, str], bool] = {}
        for shadowed in shadows:
            key = (shadowed.tenant, shadowed.exchange)
            self._shadows.setdefault(key, []).append(shadowed.attempt)
        for one in feedback:
            self._hear(one)
        for exchange in exchanges:
            for result in exchange.tool_results:
                at = (exchange.tenant, exchange.conversation, result.tool_call_id)
                self._failed[at] = result.outcome == "error"

    def _hear(self, feedback: Feedback) -> None:
        """The latest thumb of each exchange and conversation counts."""
        key = (feedback.tenant, feedback.exchange or feedback.conversation or "")
        if feedback.kind == "boolean":
            self._thumbs[key] = max(
                feedback, self._thumbs.get(key, feedback), key=lambda one: one.given_at
            )

    def clouds(self, exchange: Exchange) -> list[Attempt]:
        """What clouds said to the request, to the client or in a shadow."""
        asked = [*exchange.attempts, *self._shadows.get((exchange.tenant, exchange.id), ())]
        return [one for one in asked if own_name(one) is None and one.outcome == "completed"]

    def shadow(self, exchange: Exchange, adapter: str) -> Attempt | None:
        """What an adapter of ours said out of the client's sight, if it said anything whole."""
        asked = self._shadows.get((exchange.tenant, exchange.id), ())
        return next((one for one in asked if own_name(one) == adapter and _is_whole(one)), None)

    def disliked(self, exchange: Exchange) -> bool | None:
        about = (exchange.id, exchange.request_id, exchange.conversation)
        heard = [self._thumbs.get((exchange.tenant, id)) for id in about if id]
        return next((not one.value for one in heard if one is not None), None)

    def tool_failed(self, exchange: Exchange) -> bool | None:
        calls = [call.id for call in exchange.attempts[-1].answer.tool_calls]
        at = [(exchange.tenant, exchange.conversation, id) for id in calls]
        known = [self._failed[one] for one in at if one in self._failed]
        return any(known) if known else None


def _disagreed(exchange: Exchange, own: Sequence[Attempt], clouds: list[Attempt]) -> bool | None:
    said = next((one.answer for one in reversed(own) if _is_whole(one)), None)
    agrees = _agree(exchange, said, clouds[0].answer) if said and clouds else None
    return None if agrees is None else not agrees


def _agree(exchange: Exchange, said: Answer, other: Answer) -> bool | None:
    """Whether two answers to a request are the same; None where nobody can tell."""
    if exchange.level != "full":
        return None
    try:
        offered = bool(parse_request(bytes(exchange.request)).offered)
    except MalformedRequest:
        return None
    found = compare(said, other, tools_offered=offered)
    return None if found.kind == "not_comparable" else found.agrees


_Reading: TypeAlias = Callable[[Exchange, Watched, _Told], Iterator[_T]]
"""Makes of an exchange what it tells, if anything."""


def _is_whole(attempt: Attempt) -> bool:
    said: Answer = attempt.answer
    return attempt.outcome in ("completed", "invalid") and bool(said.tool_calls or said.text)


# ---------------------------------------------------------------- slowness


def timed(requests: Sequence[Request], limit_s: float | None) -> list[Request]:
    """The requests, each said to be slow or not; None: nobody knows what is slow."""
    if limit_s is None:
        return list(requests)
    return [replace(one, slow=one.seconds > limit_s) for one in requests]
