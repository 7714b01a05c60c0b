"""What people say of an answer, from a form: the same Feedback that POST /v1/feedback takes."""

from __future__ import annotations

from collections.abc import Mapping

import msgspec

from proxy.auth import Caller
from proxy.dashboard.questions import Seen
from proxy.endpoints import feedback
from proxy.errors import BadRequest
from proxy.protocol import toolcheck
from proxy.protocol.feedback import Feedback
from proxy.protocol.openai import ChatRequest, FunctionCall, Message, Tool, ToolCall


class BadCorrection(BadRequest):
    """The form cannot be taken as it is; the message says what to change."""


class _Written(msgspec.Struct, forbid_unknown_fields=True):
    """One call as people write it."""

    name: str
    arguments: dict[str, msgspec.Raw] = {}


def parse(form: Mapping[str, str], seen: Seen, operator: Caller) -> Feedback:
    """The feedback in a form, on an exchange of any tenant; raises BadCorrection."""
    kind = form.get("kind", "")
    if kind not in ("boolean", "comment", "demonstration"):
        raise BadCorrection("Say whether it is right, comment on it, or correct it.")
    value: object = form.get("value", "").strip()
    if kind == "boolean":
        value = value == "right"
    elif kind == "demonstration":
        value = _shown(form, seen)
    elif not value:
        raise BadCorrection("The comment is empty.")
    given = {"kind": kind, "value": value, "exchange_id": seen.id}
    # It belongs to the exchange's tenant: another's feedback belongs to nothing.
    whose = operator._replace(tenant=seen.tenant)
    try:
        return feedback.parse(msgspec.json.encode(given), whose)
    except BadRequest as error:
        raise BadCorrection(error.message) from error


def _shown(form: Mapping[str, str], seen: Seen) -> Mapping[str, object]:
    """The answer that would have been right, in OpenAI's form."""
    text, calls = form.get("text", "").strip(), _calls(form.get("calls", "").strip())
    if not text and not calls:
        raise BadCorrection("Give the calls or the text that would have been right.")
    _check(calls, seen)
    return {"content": text or None, "tool_calls": calls}


def _calls(text: str) -> list[ToolCall]:
    if not text:
        return []
    try:
        written = msgspec.json.decode(text, type=list[_Written])
    except (msgspec.MsgspecError, RecursionError) as error:
        raise BadCorrection(
            f'The calls are no JSON list like [{{"name": "find", "arguments": {{}}}}]: {error}'
        ) from error
    return [
        ToolCall(f"call_{n}", FunctionCall(one.name, msgspec.json.encode(one.arguments).decode()))
        for n, one in enumerate(written, 1)
    ]


def _check(calls: list[ToolCall], seen: Seen) -> None:
    """Raise BadCorrection for calls that the request does not allow: nobody should learn them."""
    if not calls or not seen.tools_json:
        return
    tools = msgspec.json.decode(seen.tools_json, type=list[Tool])
    request = ChatRequest(model="", messages=[Message(role="user")], tools=tools)
    try:
        failure = toolcheck.check(calls, request)
    except ValueError:
        # A schema that cannot be compiled allows and forbids nothing.
        return
    if failure is not None:
        raise BadCorrection(f"The request does not allow these calls: {failure.message}")
