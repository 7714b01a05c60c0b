"""Conversations of several steps: what must hold in them (CEP/1, docs/formats.md), and how one
becomes rows: each of the assistant's messages is an answer to what stands before it.
"""

from __future__ import annotations

import itertools
from collections.abc import Sequence
from typing import Literal, TypeAlias

import msgspec

from proxy.protocol.openai import Message
from trainer.rows import Row, Workflow

Fault: TypeAlias = Literal[
    "no_user",
    "no_answer",
    "roles_out_of_order",
    "result_answers_no_call",
    "call_unanswered",
    "calls_a_tool_not_offered",
    "too_many_calls",
]


def fault(row: Row, most_calls: int | None = None) -> Fault | None:
    """The first invariant that the row breaks; None for a sound one.

    `most_calls`: as many calls as one message may hold in the format that is trained. That each
    call is of an offered tool is asked of workflows only: elsewhere tools may come and go.
    """
    if not row.calls and not row.text:
        return "no_answer"
    return _order(row.messages) or _answered(row) or _calls(row, most_calls)


def _order(messages: Sequence[Message]) -> Fault | None:
    """A user begins, the assistant never speaks twice, and somebody else spoke last."""
    roles = [m.role for m in messages if m.role not in ("system", "developer")]
    if "user" not in roles:
        return "no_user"
    doubled = any(a == b == "assistant" for a, b in itertools.pairwise(roles))
    if doubled or roles[0] != "user" or roles[-1] == "assistant":
        return "roles_out_of_order"
    return None


def _answered(row: Row) -> Fault | None:
    """Every result answers a call of the message before; every call is answered or abandoned."""
    waiting: set[str] = set()
    abandoned = set(row.cep.abandoned) if row.cep else set()
    for message in row.messages:
        if message.role == "tool":
            if message.tool_call_id not in waiting:
                return "result_answers_no_call"
            waiting.discard(message.tool_call_id)
        elif message.role in ("user", "assistant"):
            if waiting - abandoned:
                return "call_unanswered"
            waiting = {call.id for call in message.tool_calls or ()}
    return "call_unanswered" if waiting - abandoned else None


def _calls(row: Row, most: int | None) -> Fault | None:
    offered = {function.name for function in row.functions}
    past = [[c.function for c in m.tool_calls or () if c.function] for m in row.messages]
    for calls in (*past, row.calls):
        if row.cep and any(call.name not in offered for call in calls):
            return "calls_a_tool_not_offered"
        if most is not None and len(calls) > most:
            return "too_many_calls"
    return None


# ---------------------------------------------------------------- one conversation, several rows


def expanded(row: Row, most: int) -> list[Row]:
    """The row and, before it, one for each earlier answer in its conversation: `most` at most,
    evenly spread, so that long conversations do not dominate. Those marked as unlearnt are none.
    """
    turns = [
        _turn(row, number)
        for number, message in enumerate(row.messages)
        if message.role == "assistant" and number not in row.unlearnt and _says(message)
    ]
    return _placed(spread([*turns, row], most))


def spread(items: Sequence[Row], most: int) -> list[Row]:
    """At most so many of them, evenly spread, the last one among them."""
    if len(items) <= most:
        return list(items)
    return [items[(number + 1) * len(items) // most - 1] for number in range(most)]


def _says(message: Message) -> bool:
    return bool(message.text or message.tool_calls)


def _turn(row: Row, number: int) -> Row:
    answer = row.messages[number]
    return msgspec.structs.replace(
        row,
        messages=row.messages[:number],
        calls=[call.function for call in answer.tool_calls or () if call.function],
        text=answer.text,
        accepted=[],
        cep=None,
        unlearnt=[n for n in row.unlearnt if n < number],
    )


def _placed(rows: list[Row]) -> list[Row]:
    return [msgspec.structs.replace(row, cep=row.cep or workflow(row)) for row in rows]


def workflow(row: Row, id: str = "") -> Workflow | None:
    """The step that the row is in what the user asked last; None for what is done in one step."""
    asked = max((n for n, m in enumerate(row.messages) if m.role == "user"), default=0)
    step = sum(message.role == "assistant" for message in row.messages[asked:])
    if not step:
        return None
    turn = sum(message.role == "user" for message in row.messages[: asked + 1])
    return Workflow(id=f"{id or row.group}#{turn}", step=step, goal=row.messages[asked].text)
