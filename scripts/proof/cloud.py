"""The scripted cloud: a real HTTP server that speaks OpenAI's API and answers from the references.

It knows a request by all that its users said so far and by whether a tool has spoken last; what it
is asked that it does not know is an error, and fails the proof.
"""

from __future__ import annotations

import random
from collections.abc import Iterable
from dataclasses import dataclass, field
from hashlib import sha256
from typing import TypeAlias

import msgspec

from proxy.protocol.openai import Message
from scripts.proof.traffic import Conversation, Turn
from tests.scripted import KEPT, Received, ScriptedCloud, Step, answer, chunk, error, stream

MODEL = "gpt-4o-2024-08-06"
"""The snapshot that it says it is; its price stands in the price table."""
_LETTERS = 4
"""Letters of a token. Chosen: usual for English; the cloud's bill is counted with it."""

_Key: TypeAlias = tuple[tuple[str, ...], bool]
"""All that users said, and whether a tool said something since."""


@dataclass
class Cloud(ScriptedCloud):
    """Answers each request as its conversation says."""

    known: dict[_Key, Turn] = field(default_factory=dict)
    answered: int = 0
    strange: int = 0
    """Requests that it had no answer to."""
    chance: random.Random = field(default_factory=lambda: random.Random(0))

    def learn(self, conversations: Iterable[Conversation]) -> None:
        """Know the answers of these conversations."""
        for conversation in conversations:
            said: tuple[str, ...] = ()
            for turn in conversation.turns:
                said = (*said, turn.said)
                self.known[said, False] = self.known[said, True] = turn

    def script_for(self, request: Received) -> tuple[Step, ...]:
        # What was asked is kept by no one: thousands of requests would stay in memory.
        self.requests.clear()
        messages = msgspec.convert(request.json["messages"], list[Message])
        told = messages[-1].role == "tool"
        said = tuple(m.text for m in messages if m.role == "user")
        turn = self.known.get((said, told))
        if turn is None:
            self.strange += 1
            return (error(500, "the references do not know this request", None, KEPT),)
        self.answered += 1
        message = _message(turn, said, told)
        usage = _usage(request.body, message)
        if request.json.get("stream"):
            return tuple(self._streamed(message, usage))
        return (answer(self._completion(message, usage), KEPT),)

    def _completion(self, message: dict[str, object], usage: object) -> dict[str, object]:
        choice = {"index": 0, "message": message, "finish_reason": _finish(message)}
        return self._head("chat.completion") | {"choices": [choice], "usage": usage}

    def _streamed(self, message: dict[str, object], usage: object) -> list[Step]:
        calls = message.get("tool_calls")
        delta = dict(message)
        if isinstance(calls, list):
            delta["tool_calls"] = [{"index": n} | call for n, call in enumerate(calls)]
        own = self._head("chat.completion.chunk")
        parts = [chunk(delta), chunk({}, _finish(message)), {"choices": [], "usage": usage}]
        return stream(*({**part, **own} for part in parts))

    def _head(self, kind: str) -> dict[str, object]:
        id = f"chatcmpl-{self.chance.getrandbits(64):016x}"
        return {"id": id, "object": kind, "created": 1, "model": MODEL}


def _message(turn: Turn, said: tuple[str, ...], told: bool) -> dict[str, object]:
    if turn.call is None or told:
        return {"role": "assistant", "content": turn.text}
    # A call's id is part of what is learnt from: the same words get the same one.
    named = {"id": f"call_{sha256(repr(said).encode()).hexdigest()[:16]}", "type": "function"}
    called = {"name": turn.call.name, "arguments": turn.call.arguments}
    return {"role": "assistant", "content": None, "tool_calls": [named | {"function": called}]}


def _finish(message: dict[str, object]) -> str:
    return "tool_calls" if message.get("tool_calls") else "stop"


def _usage(asked: bytes, message: dict[str, object]) -> dict[str, int]:
    """Tokens, by the length of what was asked and said."""
    prompt, completion = (
        len(asked) // _LETTERS,
        len(msgspec.json.encode(message)) // _LETTERS,
    )
    return {
        "prompt_tokens": prompt,
        "completion_tokens": completion,
        "total_tokens": prompt + completion,
    }
