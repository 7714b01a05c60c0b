"""POST /v1/feedback: what a client says, later, of an exchange or a conversation."""

from __future__ import annotations

import re
import secrets
import time

import msgspec
from starlette.types import Receive, Scope, Send

from proxy.auth import Authenticator, Caller
from proxy.endpoints import ClientGone, caller_of, send_json
from proxy.endpoints.reading import read_json
from proxy.errors import BadRequest, NotFound, RecordUnavailable
from proxy.protocol.exchange import Answer
from proxy.protocol.feedback import Feedback, Kind
from proxy.protocol.openai import FunctionCall, ToolCall
from proxy.recorder import Recorder

MAX_BODY = 1024 * 1024
"""Bytes of a body. Chosen: a demonstration is one answer."""

_AT = re.compile(r" - at `\$\.?(?P<path>[^`]*)`$")


class _Call(msgspec.Struct):
    function: FunctionCall
    id: str = ""
    type: str = "function"


class _Message(msgspec.Struct):
    """An assistant's message, in OpenAI's form."""

    content: str | None = None
    tool_calls: list[_Call] = []


class _Given(msgspec.Struct, forbid_unknown_fields=True):
    kind: Kind
    value: bool | float | str | _Message
    exchange_id: str | None = None
    conversation_id: str | None = None
    name: str = ""


class _Taken(msgspec.Struct):
    id: str
    object: str = "feedback"


class GiveFeedback:
    """Appends feedback to the record, as the caller's tenant.

    Whether the exchange exists is not looked up: feedback belongs to what the same tenant has
    under that id, or to nothing, and nobody learns which ids there are.
    """

    def __init__(self, auth: Authenticator, recorder: Recorder | None) -> None:
        self._auth = auth
        self._recorder = recorder

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        headers = dict(scope["headers"])
        caller = caller_of(scope, self._auth)
        recorder = recorder_of(self._recorder)
        try:
            feedback = parse(await read_json(headers, receive, MAX_BODY), caller)
        except ClientGone:
            return
        await keep(feedback, recorder)
        await send_json(send, _Taken(feedback.id))


def recorder_of(recorder: Recorder | None) -> Recorder:
    """The recorder; raises NotFound where there is none."""
    if recorder is None:
        raise NotFound("nothing is recorded here, and so there is nothing to judge")
    return recorder


async def keep(feedback: Feedback, recorder: Recorder) -> None:
    """Append it to the record; raises RecordUnavailable."""
    if recorder.is_durable:
        await recorder.keep(feedback)
    elif not recorder.put(feedback):
        raise RecordUnavailable("the record cannot keep up; send the feedback again later")


def parse(body: bytes, caller: Caller) -> Feedback:
    """The feedback in a body; raises BadRequest with the field's path."""
    try:
        given = msgspec.json.decode(body, type=_Given)
        return Feedback(
            id=f"feedback-{secrets.token_hex(12)}",
            given_at=time.time(),
            tenant=caller.tenant,
            caller=caller.name,
            exchange=given.exchange_id,
            conversation=given.conversation_id,
            name=given.name,
            kind=given.kind,
            value=_answer(given.value) if isinstance(given.value, _Message) else given.value,
        )
    except (ValueError, RecursionError) as error:
        found = _AT.search(str(error))
        raise BadRequest(str(error), found["path"] if found else None) from None


def _answer(message: _Message) -> Answer:
    calls = [ToolCall(call.id, call.function, call.type) for call in message.tool_calls]
    return Answer(text=message.content or "", tool_calls=calls)
