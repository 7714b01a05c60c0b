"""The life of a request, top to bottom. Read this file first.

| step            | where                        | may end with                  |
|-----------------|------------------------------|-------------------------------|
| 1 authenticate  | auth (asked by endpoints)    | 401                           |
| 2 parse         | protocol.openai, toolcheck   | 400 with the field's path     |
| 3 match         | routing                      | 404 for an unknown model      |
| 4 admit         | limits                       | 429 with retry-after          |
| 5 plan          | catalog                      | 400 for what no backend can   |
| 6 attempt       | cache, cascade, attempt      | 502, 503, 504                 |
| 7 relay         | endpoints                    | the client leaves             |
| 8 record        | recording, recorder, shadow  | never the client's problem    |
"""

from __future__ import annotations

import asyncio
from collections.abc import Mapping
from contextlib import AbstractContextManager
from dataclasses import dataclass
from types import TracebackType

import msgspec

from proxy.assemble import new_head
from proxy.attempt import Job
from proxy.auth import Authenticator, Caller
from proxy.cache import WISH, Cache
from proxy.cascade import Answer, Give
from proxy.catalog import Catalog, Plan
from proxy.consent import Consent
from proxy.conversation import Conversation
from proxy.deadline import Deadline
from proxy.durable import durable
from proxy.errors import BadRequest, Forbidden, ProxyError
from proxy.hedge import Hedges
from proxy.limits import Limits
from proxy.logs import CLIENT_GONE, Facts
from proxy.metrics import Metrics
from proxy.protocol.conversation import check_messages
from proxy.protocol.fingerprints import fingerprint_offered
from proxy.protocol.legacy import in_the_client_s_words, modern
from proxy.protocol.openai import ChatRequest, MalformedRequest, parse_request
from proxy.protocol.toolcheck import check_tools
from proxy.quotas.base import Who
from proxy.recorder import Recorder
from proxy.recording import Recording
from proxy.routing import Route, Routes
from proxy.shadow import Shadows
from proxy.shadow_lane import Answered

PIN = b"x-headrace-adapter"
"""Request header that names the adapter to answer, or `base`: for tests and evaluation."""
PIN_BACKEND = b"x-headrace-backend"
"""Request header that names the backend to answer, alone."""
FORCE_FALLBACK = b"x-headrace-fallback"
"""Request header that leaves out the plan's first backend, whatever its value."""
_FOR_ADMINS = frozenset((PIN, PIN_BACKEND, FORCE_FALLBACK))


CONVERSATION = b"x-headrace-conversation"
"""Request header that names the conversation, where `metadata` does not."""


class Inbound(msgspec.Struct, frozen=True):
    """A request as it came in."""

    caller: Caller
    headers: Mapping[bytes, bytes]
    """Lower-case names."""
    body: bytes
    facts: Facts
    """Filled in on the way: what the response's headers and the log line will say."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Gateway:
    """Answers chat requests. Made once; holds no state of its own."""

    auth: Authenticator
    routes: Routes
    limits: Limits
    catalog: Catalog
    recorder: Recorder | None
    metrics: Metrics
    consent: Consent
    deadline_s: float
    longest_s: float
    hedges: Hedges
    cache: Cache
    shadows: Shadows | None = None

    async def answer(self, inbound: Inbound, give: Give) -> None:
        """Give the answer to a request, once there is a first piece of it worth sending.

        Raises ProxyError, before there is one or, when the answer breaks off, after.
        """
        request = parse(inbound.body)
        route = self.match(inbound, request)
        facts = inbound.facts
        facts.domain, facts.match = route.domain, route.reason
        facts.match_probability = route.probability
        async with self.limits.admit(who(inbound, route), inbound.body, facts) as slot:
            plan = self.plan(inbound, route, request)
            head = new_head(request)
            recording = self._recording(head.id, inbound, request, route)
            slot.recording = recording
            with (
                self.recorded(recording, facts),
                self._deadline(inbound, route) as deadline,
            ):
                job = Job(
                    request=request,
                    body=inbound.body,
                    route=route,
                    plan=plan,
                    head=head,
                    recording=recording,
                    facts=facts,
                    deadline=deadline,
                    is_metered=slot.is_metered,
                )
                tenant, wish = inbound.caller.tenant, _cache_wish(inbound.headers)
                lasting = self._lasting(give, recording)
                await self.cache.answer(job, self.hedges, lasting, tenant=tenant, wish=wish)
        self._shadow(inbound, route, request, recording)

    def match(self, inbound: Inbound, request: ChatRequest) -> Route:
        """Where the request goes, of what its caller may use; raises UnknownModel and Forbidden."""
        caller = inbound.caller
        caller.check_model(request.model)
        route = self.routes.of(caller.tenant).match(request, inbound.headers)
        caller.check_domain(route.domain)
        return route

    def plan(self, inbound: Inbound, route: Route, request: ChatRequest) -> Plan:
        """Who is asked: the route's backends or, for an admin who says so, others."""
        sent = inbound.headers.keys() & _FOR_ADMINS
        if sent and not inbound.caller.is_admin:
            raise Forbidden(f"only a key with `admin: true` may send {min(sent).decode()}")
        if PIN in sent:
            return self.catalog.pinned(route, inbound.headers[PIN].decode("latin-1"))
        if PIN_BACKEND in sent:
            return self.catalog.only(route, inbound.headers[PIN_BACKEND].decode("latin-1"))
        drawn = _who(inbound, route) if self.catalog.draws(route) else ""
        plan = self.catalog.plan(route, request, drawn)
        if FORCE_FALLBACK in sent:
            plan = plan.without("forced")._replace(assigned="")
        inbound.facts.drifted, inbound.facts.assigned = list(plan.drifted), plan.assigned
        return plan

    def _deadline(self, inbound: Inbound, route: Route) -> Deadline:
        seconds = route.policy.deadline_s or self.deadline_s
        return Deadline(min(seconds, _patience(inbound.headers)), self.longest_s)

    def _recording(
        self, id: str, inbound: Inbound, request: ChatRequest, route: Route
    ) -> Recording:
        headers, caller = inbound.headers, inbound.caller
        return Recording(
            id=id,
            request_id=inbound.facts.request_id,
            tenant=caller.tenant,
            caller=caller.name,
            domain=route.domain,
            route=route.reason,
            request=request,
            body=inbound.body,
            tools_fingerprint=fingerprint_offered(request),
            retries=retries(headers),
            drifted=inbound.facts.drifted,
            level=self.consent.level(route.domain, caller.tenant, headers, request.store),
            conversation=_named(headers),
            assigned=inbound.facts.assigned,
        )

    def _shadow(
        self, inbound: Inbound, route: Route, request: ChatRequest, recording: Recording
    ) -> None:
        """Ask another backend too, where that is wanted; the client has its whole answer. Who says
        which backend shall answer tries something out, and is no traffic."""
        if self.shadows is None or not self.shadows.want(route.domain):
            return
        if not inbound.headers.keys() & _FOR_ADMINS:
            self.shadows.offer(
                Answered(
                    request=request,
                    body=inbound.body,
                    route=route,
                    recording=recording,
                )
            )

    def _lasting(self, give: Give, recording: Recording) -> Give:
        """What gives the answer; where the record is to be durable, an answer that ends when it
        is."""
        recorder = self.recorder
        if recorder is None or not recorder.is_durable:
            return give

        async def keep(status: int) -> None:
            recording.close(status)
            await recorder.keep(recording)

        async def give_lasting(answer: Answer) -> None:
            await give(await durable(answer, keep))

        return give_lasting

    def recorded(self, recording: Recording, facts: Facts) -> Recorded:
        """Hands the recording over when the request is over, however it ends."""
        return Recorded(self.metrics, self.recorder, recording, facts)


class Recorded(AbstractContextManager[None]):
    """A request that is recorded: how the context is left is what the record says."""

    def __init__(
        self, metrics: Metrics, recorder: Recorder | None, recording: Recording, facts: Facts
    ) -> None:
        self._metrics = metrics
        self._recorder = recorder
        self._recording = recording
        self._facts = facts

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        if isinstance(error, asyncio.CancelledError | GeneratorExit):
            self._facts.outcome = "client_aborted"
        self._recording.close(self._facts.status or _status(error))
        self._metrics.put(self._recording)
        if self._recorder is not None:
            self._recorder.put(self._recording)


def _status(error: BaseException | None) -> int:
    match error:
        case None:
            return 200
        case ProxyError():
            return error.status
        case asyncio.CancelledError() | GeneratorExit():
            return CLIENT_GONE
        case _:
            return 500


def who(inbound: Inbound, route: Route) -> Who:
    """Whose use of what this is, as quotas count it."""
    return Who(inbound.caller.tenant, inbound.caller.name, route.domain)


def parse(body: bytes) -> ChatRequest:
    """The request in `body`, checked, in its modern form; raises BadRequest with the path."""
    try:
        request = modern(parse_request(body))
        try:
            check_tools(request)
        except MalformedRequest as error:
            raise in_the_client_s_words(error) if request.is_legacy else error from None
        check_messages(request.messages)
    except MalformedRequest as error:
        raise BadRequest(str(error), error.param) from error
    return request


def retries(headers: Mapping[bytes, bytes]) -> int:
    """How often the client's SDK has sent this request before, if it says so."""
    return _whole_number(headers.get(b"x-stainless-retry-count", b""))


def _who(inbound: Inbound, route: Route) -> str:
    """Who keeps its side of a split or canary."""
    policy, caller = route.policy, inbound.caller
    who = caller.name
    if policy.assign_by == "conversation":
        who = Conversation(inbound.body).id(caller.tenant, _named(inbound.headers))
    return f"{caller.tenant}\0{who}"


def _named(headers: Mapping[bytes, bytes]) -> str | None:
    """The client's name for the conversation, if it sends one."""
    return headers.get(CONVERSATION, b"").decode("latin-1") or None


def _cache_wish(headers: Mapping[bytes, bytes]) -> bytes:
    """What the client wants of the cache; who says which backend shall answer wants its answer."""
    if headers.keys() & _FOR_ADMINS:
        return b"skip"
    return headers.get(WISH, b"")


def _whole_number(text: bytes) -> int:
    return int(text) if text.isdigit() and len(text) < 6 else 0


def _patience(headers: Mapping[bytes, bytes]) -> float:
    """Seconds that the client's SDK waits between two bytes, if it says so."""
    said = headers.get(b"x-stainless-read-timeout")
    if said is None:
        return float("inf")
    try:
        seconds = float(said)
    except ValueError:
        return float("inf")
    return seconds if seconds > 0 else float("inf")
