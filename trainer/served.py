"""Asking over HTTP: through the proxy, or any other OpenAI endpoint."""

from __future__ import annotations

import asyncio
import time
from collections import Counter
from collections.abc import Mapping, Sequence
from typing import Any

import msgspec
from openai import APIError, APIStatusError, AsyncOpenAI
from openai.types.chat import ChatCompletion

from proxy.protocol.formats.base import Parsed, call
from proxy.protocol.openai import Message
from trainer.evaluate import Said
from trainer.rows import Row
from trainer.subject import Subject

VOTE_HEAT = 0.7
"""Temperature of the samples that vote. Chosen: usual for self-consistency."""
MOST_TOKENS = 256
"""Of an answer, where nobody says otherwise."""


class Served:
    """A subject at an OpenAI endpoint. The key is that of the endpoint; a proxy without keys takes
    any."""

    def __init__(
        self, base_url: str, subject: Subject, key: str = "none", most: int = MOST_TOKENS
    ) -> None:
        self._most = most
        self.place = subject.url or base_url
        self.trouble = ""
        self._subject = subject
        self._client = AsyncOpenAI(base_url=self.place, api_key=key, max_retries=0, timeout=120)

    async def ask(self, row: Row) -> Said | None:
        heat = VOTE_HEAT if self._subject.votes > 1 else 0.0
        votes = await asyncio.gather(*(self._sample(row, heat) for _ in range(self._subject.votes)))
        answered = [vote for vote in votes if vote is not None]
        return _elected(answered) if answered else None

    async def close(self) -> None:
        await self._client.close()

    async def _sample(self, row: Row, heat: float) -> Said | None:
        began = time.monotonic()
        several: dict[str, Any] = {"parallel_tool_calls": len(row.calls) > 1}
        tools = [{"type": "function", "function": f} for f in _wire(row.functions)]
        if tools:
            choice = "required" if self._subject.must_call else "auto"
            several |= {"tools": tools, "tool_choice": choice}
        try:
            response = await self._client.chat.completions.with_raw_response.create(
                model=self._subject.model,
                messages=_wire(self._messages(row)),
                temperature=heat,
                max_tokens=self._most,
                extra_headers=self._subject.headers,
                **(several if tools else {}),
            )
            completion = response.parse()
            return _said(completion, time.monotonic() - began, response.headers)
        except (APIError, ValueError, IndexError) as error:
            self.trouble = _told(error)
            return None

    def _messages(self, row: Row) -> list[Message]:
        if not self._subject.prompt:
            return row.messages
        return [Message(role="system", content=self._subject.prompt), *row.messages]


def _told(error: Exception) -> str:
    """Which error it was, without its words: a server may quote what it was sent."""
    match error:
        case APIStatusError(status_code=status, code=code):
            return f"status {status}{f', {code}' if code else ''}"
        case APIError():
            return str(error.message)
        case _:
            return f"an answer that cannot be read, {type(error).__name__}"


def _said(completion: ChatCompletion, seconds: float, headers: Mapping[str, str]) -> Said:
    usage = completion.usage
    confidence = headers.get("x-headrace-confidence")
    return Said(
        parsed=_parsed(completion),
        seconds=seconds,
        confidence=None if confidence is None else float(confidence),
        model=completion.model,
        by=headers.get("x-headrace-adapter") or headers.get("x-headrace-backend") or "",
        at=time.time(),
        prompt_tokens=usage.prompt_tokens if usage else 0,
        completion_tokens=usage.completion_tokens if usage else 0,
    )


def _elected(votes: Sequence[Said]) -> Said:
    """The answer that most samples gave, the first of equals; it cost what all of them did."""
    cast = [tuple((c.function.name, c.function.arguments) for c in v.parsed.calls) for v in votes]
    most = Counter(cast).most_common(1)[0][0]
    return msgspec.structs.replace(
        votes[cast.index(most)],
        seconds=max(vote.seconds for vote in votes),
        prompt_tokens=sum(vote.prompt_tokens for vote in votes),
        completion_tokens=sum(vote.completion_tokens for vote in votes),
    )


def _wire(of: object) -> Any:
    """As a client's JSON would hold it; raw parts, such as schemas, are decoded on the way."""
    return msgspec.json.decode(msgspec.json.encode(of))


def _parsed(completion: ChatCompletion) -> Parsed:
    message = completion.choices[0].message
    calls = [c.function for c in message.tool_calls or () if c.type == "function"]
    return Parsed(message.content or "", tuple(call(c.name, c.arguments) for c in calls))
