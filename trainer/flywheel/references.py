"""The clouds' answers as the record has them: what a candidate's answers are paired with.

Nobody is asked again: a cloud that answered in March is what the clients then got.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from pathlib import Path

import msgspec

from proxy.protocol.exchange import Attempt, Exchange
from proxy.protocol.formats.base import Parsed
from proxy.protocol.openai import ToolCall
from trainer.errors import FlywheelError, cause_of
from trainer.evaluate import Said
from trainer.rows import Row


class Reference(msgspec.Struct, frozen=True, kw_only=True, omit_defaults=True):
    """What a cloud said to the request of an exchange."""

    tenant: str
    exchange: str
    model: str
    text: str = ""
    calls: list[ToolCall] = []
    at: float
    """Seconds since the epoch."""
    seconds: float
    prompt_tokens: int = 0
    completion_tokens: int = 0


def reference(exchange: Exchange, attempt: Attempt) -> Reference:
    usage = attempt.usage
    return Reference(
        tenant=exchange.tenant,
        exchange=exchange.id,
        model=attempt.model or attempt.backend,
        text=attempt.answer.text,
        calls=attempt.answer.tool_calls,
        at=attempt.started_at,
        seconds=attempt.total_s,
        prompt_tokens=usage.prompt_tokens if usage else 0,
        completion_tokens=usage.completion_tokens if usage else 0,
    )


def write(path: Path, references: Iterable[Reference]) -> int:
    """One a line; how many."""
    count = 0
    with path.open("wb") as file:
        for one in references:
            file.write(msgspec.json.encode(one) + b"\n")
            count += 1
    return count


def read(path: Path) -> Iterator[Reference]:
    """Raises FlywheelError for what is no reference."""
    decoder = msgspec.json.Decoder(Reference)
    try:
        with path.open("rb") as lines:
            yield from map(decoder.decode, lines)
    except (OSError, ValueError) as error:
        raise FlywheelError(f"{path}: {cause_of(error)}; run with `--force-step rows`") from error


class Recorded:
    """A subject whose answers are there already."""

    place = "the record"
    trouble = ""

    def __init__(self, path: Path) -> None:
        self._known = {(one.tenant, one.exchange): one for one in read(path)}

    def knows(self, row: Row) -> bool:
        """Whether a cloud answered the row's request."""
        return (row.tenant, row.exchange) in self._known

    async def ask(self, row: Row) -> Said | None:
        one = self._known.get((row.tenant, row.exchange))
        if one is None:
            return None
        return Said(
            parsed=Parsed(one.text, tuple(one.calls)),
            seconds=one.seconds,
            model=one.model,
            at=one.at,
            prompt_tokens=one.prompt_tokens,
            completion_tokens=one.completion_tokens,
        )

    async def close(self) -> None:
        return None
