"""Answers that are given again: the same request, asked again, gets the answer that it got before.

Off unless a domain's `cache` says otherwise. Exact: the same tenant, the same backends and
adapters, the same request but for what changes no answer. Only requests that ask for the same
answer each time are looked at: temperature 0 or a fixed seed, one choice. In memory, bounded by
bytes and age.
"""

from __future__ import annotations

import hashlib
from collections.abc import AsyncIterator, Iterable, Mapping, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass

import msgspec
from cachetools import TTLCache

from proxy import cascade, sse
from proxy.attempt import Job
from proxy.backends.base import Ask, Call, Event, Finish, Generated, Text
from proxy.cascade import Answer, Give, Streamed, Whole
from proxy.catalog import Candidate, Plan
from proxy.domains import CacheSettings, Domain
from proxy.errors import BadRequest
from proxy.hearing import Heard
from proxy.hedge import Hedges
from proxy.protocol.openai import ChatRequest, FinishReason, ToolCall, Usage
from proxy.recording import MAX_ANSWER
from proxy.verify import failure_of

NAME = "cache"
"""The backend that hits are recorded under."""
WISH = b"x-headrace-cache"
"""Request header: `skip` asks past the cache, `refresh` also keeps the new answer."""

_WISHES = (b"", b"skip", b"refresh")
_WITHOUT_EFFECT = frozenset(
    ("user", "safety_identifier", "metadata", "stream", "stream_options", "prompt_cache_key")
)
"""Fields that say who asks, or how the answer is brought; it stays the same answer."""
_REPLAYED = frozenset(("role", "content", "tool_calls", "function_call"))
"""What of a message can be given again; an answer that says more is not kept."""
_NOTHING = (b"null", b'""', b"[]", b"{}")
_OVERHEAD = 512
"""Bytes that an entry takes beside its answer. Chosen: key, entry and links of the store."""
_MIB = 1024 * 1024

_Store = TTLCache[bytes, bytes]


class Cache:
    """The answers kept for each domain. Made once; holds them for the life of the process."""

    def __init__(self, domains: Mapping[str, Domain]) -> None:
        self._stores = {
            name: _store(domain.cache)
            for name, domain in domains.items()
            if domain.cache is not None
        }

    async def answer(
        self, job: Job, hedges: Hedges, give: Give, *, tenant: str, wish: bytes = b""
    ) -> None:
        """Give the answer that was given before or, without one, the cascade's; keep that if it
        may be.

        Raises BadRequest for an unknown `wish`, and what the cascade raises.
        """
        if wish not in _WISHES:
            raise BadRequest(f"{WISH.decode()} is `skip` or `refresh`, or left out")
        place = None if wish == b"skip" else self._place(job, tenant)
        if place is None:
            await cascade.answer(job, hedges, give)
            return
        found = None if wish == b"refresh" else place.found()
        job.facts.cache = "miss" if found is None else "hit"
        if found is not None:
            job = msgspec.structs.replace(job, plan=Plan([Candidate(found, None)], None))
            await cascade.answer(job, hedges, give)
        else:
            await cascade.answer(job, hedges, lambda answer: give(place.keeping(answer)))

    def _place(self, job: Job, tenant: str) -> _Place | None:
        """Where the request's answer is; None where another one is wanted each time."""
        store = self._stores.get(job.route.domain)
        if store is None or not _wants_the_same(job.request):
            return None
        return _Place(store, _key(job, tenant), job.request)


def _store(settings: CacheSettings) -> _Store:
    size = int(settings.max_mib * _MIB)
    return TTLCache(size, settings.ttl_s, getsizeof=_size)


def _size(kept: bytes) -> int:
    return len(kept) + _OVERHEAD


def _wants_the_same(request: ChatRequest) -> bool:
    fixed = request.temperature == 0 or request.seed is not None
    return fixed and (request.n or 1) == 1 and not request.logprobs and not request.store


def _key(job: Job, tenant: str) -> bytes:
    """Digest of all that decides the answer; the order of keys and white space do not."""
    asked = msgspec.json.decode(job.body, type=dict[str, object])
    asked = {name: value for name, value in asked.items() if name not in _WITHOUT_EFFECT}
    plan = [
        (candidate.backend.name, candidate.adapter and candidate.adapter.id, candidate.bare)
        for candidate in job.plan.candidates
    ]
    whole = msgspec.json.encode((tenant, plan, asked), order="deterministic")
    return hashlib.sha256(whole).digest()


# ---------------------------------------------------------------- one answer


class _Kept(msgspec.Struct, frozen=True, array_like=True):
    """An answer as it is kept, encoded: small, and nobody can change it."""

    text: str
    calls: list[ToolCall]
    reason: FinishReason
    usage: Usage | None
    """None where a streamed answer did not say."""

    def events(self) -> list[Event]:
        """The answer as an engine would give it."""
        finish = Finish(reason=self.reason, usage=self.usage or Usage.of(0, 0))
        return [*([Text(self.text)] if self.text else []), *map(Call, self.calls), finish]


_decoder = msgspec.msgpack.Decoder(_Kept)


@dataclass(frozen=True, slots=True)
class _Place:
    """Where the answer to one request is kept."""

    store: _Store
    key: bytes
    request: ChatRequest

    def found(self) -> Replay | None:
        """The answer that is there, if it says all that this request wants to hear."""
        wire = self.store.get(self.key)
        if wire is None:
            return None
        kept = _decoder.decode(wire)
        wants_usage = self.request.wants_usage or not self.request.stream
        return None if wants_usage and kept.usage is None else Replay(kept.events())

    def keeping(self, answer: Answer) -> Answer:
        """The same answer, kept once it is whole and if it may be given again."""
        match answer:
            case Whole(content=content):
                self._keep([content])
                return answer
            case Streamed(content=pieces):
                return msgspec.structs.replace(answer, content=self._teed(pieces))

    async def _teed(self, pieces: AsyncIterator[bytes]) -> AsyncIterator[bytes]:
        passed: list[bytes] = []
        room = MAX_ANSWER
        async for piece in pieces:
            room -= len(piece)
            if room > 0:
                passed.append(piece)
            yield piece
        if room > 0:
            self._keep(_data(passed))

    def _keep(self, said: Sequence[bytes]) -> None:
        kept = _read(said, self.request)
        wire = msgspec.msgpack.encode(kept)
        if kept is not None and _size(wire) <= self.store.maxsize:
            self.store[self.key] = wire


def _data(pieces: Iterable[bytes]) -> list[bytes]:
    """The chunks of a stream; [] for a stream that cannot be read."""
    decoder = sse.EventDecoder()
    try:
        data = [data for piece in pieces for data in decoder.feed(piece)]
    except sse.EventTooLarge:
        return []
    return [chunk for chunk in data if chunk.strip() != sse.DONE]


def _read(said: Sequence[bytes], request: ChatRequest) -> _Kept | None:
    """The answer in a completion, or in all of its chunks; None for one that is not kept.

    That is an answer that is not whole, or not valid, or says what we could not give again.
    """
    heard = Heard()
    for data in said:
        heard.add_json(data)
    answer = heard.events()
    if not answer or failure_of(answer, request) is not None or any(map(_says_more, said)):
        return None
    calls = [event.call for event in answer if isinstance(event, Call)]
    finish = answer[-1]
    assert isinstance(finish, Finish)
    if finish.reason == "content_filter" or any(call.type != "function" for call in calls):
        return None
    return _Kept("".join(heard.texts), calls, finish.reason, heard.usage)


class _Choice(msgspec.Struct):
    delta: dict[str, msgspec.Raw] | None = None
    message: dict[str, msgspec.Raw] | None = None


class _Said(msgspec.Struct):
    choices: list[_Choice] = []


_said = msgspec.json.Decoder(_Said)


def _says_more(data: bytes) -> bool:
    """Whether a completion or chunk holds more than texts and calls: a refusal, reasoning, …"""
    said = [choice.delta or choice.message or {} for choice in _said.decode(data).choices]
    return any(
        name not in _REPLAYED and bytes(value) not in _NOTHING
        for message in said
        for name, value in message.items()
    )


# ---------------------------------------------------------------- the answer, again


class Replay:
    """A backend with one answer: it goes the way of any other, verified, recorded, streamed."""

    name = NAME
    is_local = False

    def __init__(self, events: Sequence[Event]) -> None:
        self._events = events

    def lacks(self, request: ChatRequest) -> str | None:
        """Nothing: it is the answer to this very request."""
        return None

    @asynccontextmanager
    async def ask(self, ask: Ask) -> AsyncIterator[Generated]:
        """The answer, at once."""
        yield Generated(_at_once(self._events))

    async def ready(self) -> bool:
        """Always."""
        return True

    async def aclose(self) -> None:
        """Nothing is to be given back."""


async def _at_once(events: Sequence[Event]) -> AsyncIterator[Sequence[Event]]:
    yield events
