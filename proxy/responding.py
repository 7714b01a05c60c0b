"""POST /v1/responses: a chat in other words, where a local engine answers; a cloud's own otherwise.

A response for a local domain goes the way of any chat: routed, verified, rescued by the next
backend of the plan, recorded as the chat that it is. Where the plan begins with a cloud, or a chat
has no word for what is asked, the request is passed on to the cloud's /responses as it came.
"""

from __future__ import annotations

from collections.abc import AsyncIterator

import msgspec
from msgspec.structs import replace

from proxy import sse
from proxy.backends.base import Forward, Relaying
from proxy.cascade import Answer, Give, Streamed, Whole
from proxy.errors import BackendUnavailable, BadRequest
from proxy.gateway import Gateway, Inbound, parse
from proxy.passage import Passage
from proxy.protocol import loose
from proxy.protocol.openai import ChatRequest, MalformedRequest, parse_object
from proxy.protocol.responses import answer as answers
from proxy.protocol.responses import request as requests
from proxy.protocol.responses.events import Event, ResponseEvents
from proxy.protocol.responses.request import ResponseRequest

PATH = "/responses"


class Responder:
    """Answers requests for responses. Made once; holds no state of its own."""

    def __init__(self, gateway: Gateway, passage: Passage) -> None:
        self._gateway = gateway
        self._passage = passage

    async def answer(self, inbound: Inbound, give: Give) -> None:
        """Give the answer to a request; raises ProxyError, before it has begun or after."""
        beyond = _beyond_chat(inbound.body)
        if beyond is not None:
            await self._passage.named(inbound, give, path=PATH, lacking=beyond)
            return
        request, body = _read(inbound.body)
        chat = replace(inbound, body=body)
        asked = _parsed(body)
        route = self._gateway.match(inbound, asked)
        plan = self._gateway.plan(chat, route, asked)
        first = plan.candidates[0].backend
        if isinstance(first, Relaying):
            inbound.facts.fallback_reason = plan.passed_over
            await self._passage.through(inbound, _forward(inbound, request), first, route, give)
        else:
            await self._gateway.answer(chat, lambda answer: give(_translated(answer, request)))


def _forward(inbound: Inbound, request: ResponseRequest) -> Forward:
    return Forward(
        method="POST",
        target=PATH,
        headers={"content-type": "application/json"},
        body=inbound.body,
        model=request.model,
    )


def _beyond_chat(body: bytes) -> str | None:
    try:
        fields = parse_object(body)
    except MalformedRequest as error:
        raise BadRequest(str(error), error.param) from error
    previous = fields.get("previous_response_id")
    if isinstance(previous, str) and previous.startswith(answers.PREFIX):
        raise BadRequest(
            "this response was answered here and is not stored: send the conversation in `input`,"
            " or have the first response stored by a cloud, with `store: true`",
            "$.previous_response_id",
        )
    return requests.beyond_chat(fields)


def _read(body: bytes) -> tuple[ResponseRequest, bytes]:
    """The request, and the chat request that asks the same."""
    try:
        request = requests.parse(body)
        return request, requests.to_chat(request)
    except MalformedRequest as error:
        raise BadRequest(str(error), error.param) from error


def _parsed(chat: bytes) -> ChatRequest:
    try:
        return parse(chat)
    except BadRequest as error:
        told = requests.in_the_client_s_words
        raise BadRequest(told(error.message), error.param and told(error.param)) from error


# ---------------------------------------------------------------- answers


def _translated(answer: Answer, request: ResponseRequest) -> Answer:
    match answer:
        case Whole():
            return replace(answer, content=_response(answer.content, request))
        case Streamed():
            return replace(answer, content=_events(answer.content, request))


def _response(completion: bytes, request: ResponseRequest) -> bytes:
    try:
        return msgspec.json.encode(answers.whole(request, loose.read(completion)))
    except (ValueError, RecursionError) as error:
        raise BackendUnavailable("the backend's answer is no completion") from error


async def _events(content: AsyncIterator[bytes], request: ResponseRequest) -> AsyncIterator[bytes]:
    decoder, events = sse.EventDecoder(), ResponseEvents(request)
    async for piece in content:
        if wire := _wire(decoder, events, piece):
            yield wire
    try:
        yield b"".join(map(_encoded, events.end()))
    except ValueError as error:
        raise BackendUnavailable("the backend's answer ended before its end") from error


def _wire(decoder: sse.EventDecoder, events: ResponseEvents, piece: bytes) -> bytes:
    try:
        chunks = [loose.read(data) for data in decoder.feed(piece) if data.strip() != sse.DONE]
    except (ValueError, RecursionError) as error:
        raise BackendUnavailable("the backend's stream holds what is no chunk") from error
    if any(chunk.error is not None for chunk in chunks):
        raise BackendUnavailable("the backend reported an error in its answer")
    return b"".join(_encoded(event) for chunk in chunks for event in events.feed(chunk))


def _encoded(event: Event) -> bytes:
    return b"event: " + str(event["type"]).encode() + b"\n" + sse.encode(msgspec.json.encode(event))
