"""The way past the gateway: what is no chat is passed on to a cloud, and its answer passed back.

Nothing is read here but what must be known: who calls, whether there is room, and for requests that
name a model whether clients may ask for it; of what is answered, what it used. The record gets no
content.
"""

from __future__ import annotations

import msgspec

from proxy.backends.base import Forward, Relaying
from proxy.cascade import Give, Streamed
from proxy.errors import BadRequest, NotFound, Unsupported
from proxy.gateway import Gateway, Inbound, retries, who
from proxy.ids import new_id
from proxy.protocol.openai import ChatRequest, MalformedRequest, malformed, parse_object
from proxy.recording import Recording
from proxy.rename import rename_content
from proxy.routing import Route

_JSON = {"content-type": "application/json"}
_REMEDY = "a backend of kind 'openai' in the plan of the domain {domain!r} would (routes.yaml)"


class Passage:
    """Passes requests on to the first cloud of a plan. Made once; holds no state of its own."""

    def __init__(self, gateway: Gateway) -> None:
        self._gateway = gateway

    async def anything(self, inbound: Inbound, forward: Forward, give: Give) -> None:
        """Give the cloud's answer to a request of which nothing is known.

        Raises NotFound where no cloud is there to be asked.
        """
        route = self._route(inbound)
        cloud = self.cloud(route)
        if cloud is None:
            path = forward.target.partition("?")[0]
            raise NotFound(
                f"there is nothing at {forward.method} /v1{path[:128]} here; "
                + _REMEDY.format(domain=route.domain)
            )
        await self.through(inbound, forward, cloud, route, give)

    async def named(
        self, inbound: Inbound, give: Give, *, path: str, lacking: str | None = None
    ) -> None:
        """Give the cloud's answer to a JSON request that names a model: completions, embeddings.

        `lacking` is the field for which no local engine was asked; None means all of `path`.
        Raises UnknownModel, and Unsupported where no cloud is there.
        """
        request = _parse(inbound.body)
        if request.model is not None:
            inbound.caller.check_model(request.model)
            self._gateway.routes.of(inbound.caller.tenant).check_model(request.model)
        elif lacking is None:
            raise BadRequest("the body lacks the required field `model`", "model")
        route = self._route(inbound)
        cloud = self.cloud(route)
        if cloud is None:
            what = path if lacking is None else f"{lacking!r}, as this request uses it"
            raise Unsupported(
                f"no backend of the domain {route.domain!r} serves {what}; "
                + _REMEDY.format(domain=route.domain),
                lacking,
            )
        if cloud.name != route.plan[0]:
            inbound.facts.fallback_reason = f"unsupported_{lacking or path.strip('/')}"
        forward = Forward(
            method="POST", target=path, headers=_JSON, body=inbound.body, model=request.model
        )
        await self.through(inbound, forward, cloud, route, give)

    def _route(self, inbound: Inbound) -> Route:
        route = self._gateway.routes.of(inbound.caller.tenant).without_tools
        inbound.caller.check_domain(route.domain)
        return route

    def cloud(self, route: Route) -> Relaying | None:
        """The first backend of the route's plan that takes any request."""
        backends = self._gateway.catalog.backends
        clouds = (backends[name] for name in route.plan)
        return next((cloud for cloud in clouds if isinstance(cloud, Relaying)), None)

    async def through(
        self, inbound: Inbound, forward: Forward, cloud: Relaying, route: Route, give: Give
    ) -> None:
        """Give this cloud's answer, admitted and recorded without content."""
        facts = inbound.facts
        facts.domain, facts.match = route.domain, route.reason
        async with self._gateway.limits.admit(who(inbound, route), _body(forward), facts) as slot:
            facts.backend, facts.attempts = cloud.name, 1
            recording = slot.recording = self._recording(inbound, forward, route)
            with (
                self._gateway.recorded(recording, facts),
                recording.attempt("primary", cloud.name, model=forward.model) as tape,
            ):
                async with cloud.relay(forward) as reply:
                    content = tape.unheard(reply)
                    if reply.renamed and forward.model is not None:
                        kind = reply.headers.get("content-type", "")
                        content = rename_content(kind, content, forward.model)
                    await give(Streamed(reply.status, reply.headers, content))

    def _recording(self, inbound: Inbound, forward: Forward, route: Route) -> Recording:
        tenant = inbound.caller.tenant
        allowed = self._gateway.consent.level(route.domain, tenant, inbound.headers, None)
        return Recording(
            id=f"pass-{new_id()}",
            request_id=inbound.facts.request_id,
            tenant=tenant,
            caller=inbound.caller.name,
            domain=route.domain,
            route=route.reason,
            request=ChatRequest(model=forward.model or "", messages=[]),
            body=b"{}",
            retries=retries(inbound.headers),
            endpoint=forward.target.partition("?")[0],
            level="off" if allowed == "off" else "metadata",
            assigned=inbound.facts.assigned,
        )


def _body(forward: Forward) -> bytes:
    """What is there of the body already; what streams by is not counted."""
    return forward.body if isinstance(forward.body, bytes) else b""


class _Named(msgspec.Struct):
    """What is read of a JSON request that is passed on."""

    model: str | None = None
    """A stored prompt may name it in the request's stead."""
    stream: bool | None = None


_decoder = msgspec.json.Decoder(_Named)


def _parse(body: bytes) -> _Named:
    try:
        parse_object(body)
        return _decoder.decode(body)
    except msgspec.ValidationError as error:
        told = malformed(error)
        raise BadRequest(str(told), told.param) from None
    except MalformedRequest as error:
        raise BadRequest(str(error), error.param) from error
