"""A committee: several samples of a teacher for the rows whose label is in doubt.

Only rows are asked that somebody answered differently, or whose only answer is our own student's.
The answer that most samples give becomes the label, with their share as a number; what a filter
makes of that number is the recipe's. Every sample is kept in a cache, so that a run that was
interrupted, or is done again with more samples, asks nothing twice.
"""

from __future__ import annotations

import asyncio
import hashlib
from collections import defaultdict
from collections.abc import Callable, Iterable, Iterator, Sequence
from pathlib import Path
from typing import Any

import msgspec
from msgspec.structs import replace
from openai import APIError, AsyncOpenAI, AuthenticationError
from openai.types.chat import ChatCompletion

from proxy.protocol.agreement import compare, stance
from proxy.protocol.exchange import Answer
from proxy.protocol.openai import ChatRequest, FunctionCall, Tool, ToolCall
from proxy.protocol.toolcheck import check
from trainer.errors import LabellingError
from trainer.rows import Label, Row

_BATCH = 64
"""Rows in memory at once."""


class Committee(msgspec.Struct, frozen=True, kw_only=True):
    """Who is asked, and how often."""

    base_url: str
    """Of any OpenAI-compatible endpoint."""
    model: str
    samples: int = 5
    """Samples of a row. Odd, so that two answers cannot tie; five tell .6 from .8."""
    temperature: float = 0.7
    """0 to 2. Above 0, or all samples would say the same."""
    max_tokens: int = 1024
    """Of one answer."""
    budget_tokens: int | None = None
    """Tokens, prompts included, after which no more is asked; None for no end."""
    concurrency: int = 4
    everything: bool = False
    """Ask all rows, not only those in doubt."""


class Sample(msgspec.Struct, frozen=True, kw_only=True, omit_defaults=True):
    """One answer of the teacher."""

    key: str
    answer: Answer
    model: str
    """The snapshot that says it answered."""


class Cache:
    """Samples in a file, one a line, appended as they come."""

    def __init__(self, path: Path) -> None:
        self._path = path
        self._samples: dict[str, Sample] = {}
        decoder = msgspec.json.Decoder(Sample)
        for line in path.read_bytes().splitlines() if path.exists() else ():
            try:
                sample = decoder.decode(line)
            except (msgspec.MsgspecError, UnicodeDecodeError):
                # The run that wrote it was killed in the middle of this line.
                continue
            self._samples[sample.key] = sample

    def get(self, key: str) -> Sample | None:
        return self._samples.get(key)

    def add(self, sample: Sample) -> None:
        self._samples[sample.key] = sample
        with self._path.open("ab") as file:
            # A new line first: a line that was cut off must not swallow this one.
            file.write(b"\n" + msgspec.json.encode(sample))


class Told(msgspec.Struct):
    """What became of a run."""

    relabelled: int = 0
    changed: int = 0
    """Of those, rows whose answer is another one now."""
    undecided: int = 0
    """Rows that got no valid answer, or not all samples within the budget: left as they were."""
    asked: int = 0
    """Requests."""
    cached: int = 0
    tokens: int = 0
    failed: int = 0
    """Requests that got an error instead of an answer."""


class Labeller:
    """Labels rows; one run."""

    def __init__(self, committee: Committee, cache: Cache, key: str) -> None:
        """`key` is the endpoint's API key."""
        self.told = Told()
        self._committee = committee
        self._cache = cache
        self._key = key

    def label(self, rows: Iterable[Row], progress: Callable[[], None]) -> Iterator[Row]:
        """All rows in their order, those in doubt with a new label; raises LabellingError when the
        endpoint refuses the key or answers nothing at all."""
        waiting: list[Row] = []
        for row in rows:
            waiting.append(row)
            if len(waiting) == _BATCH:
                yield from asyncio.run(self._batch(waiting, progress))
                waiting = []
        yield from asyncio.run(self._batch(waiting, progress))

    async def _batch(self, rows: Sequence[Row], progress: Callable[[], None]) -> list[Row]:
        given = self._committee
        gate = asyncio.Semaphore(given.concurrency)
        async with AsyncOpenAI(
            base_url=given.base_url, api_key=self._key, max_retries=2, timeout=120
        ) as client:
            labelled = await asyncio.gather(
                *(self._row(row, client, gate, progress) for row in rows)
            )
        if self.told.failed and self.told.failed == self.told.asked and not self.told.cached:
            raise LabellingError(
                f"{given.base_url} answered none of {self.told.asked} requests; is it the right"
                f" address, and does it serve {given.model!r}?"
            )
        return labelled

    async def _row(
        self,
        row: Row,
        client: AsyncOpenAI,
        gate: asyncio.Semaphore,
        progress: Callable[[], None],
    ) -> Row:
        if not (self._committee.everything or is_in_doubt(row)):
            return row
        numbers = range(self._committee.samples)
        samples = await asyncio.gather(*(self._sample(row, n, client, gate) for n in numbers))
        progress()
        given = [sample for sample in samples if sample is not None]
        labelled = relabelled(row, given) if len(given) == len(samples) else None
        if labelled is None:
            self.told.undecided += 1
            return row
        self.told.relabelled += 1
        self.told.changed += not _same(row, labelled)
        return labelled

    async def _sample(
        self, row: Row, number: int, client: AsyncOpenAI, gate: asyncio.Semaphore
    ) -> Sample | None:
        """The row's sample of this number; None where it failed or the budget is spent."""
        key = self._name(row, number)
        known = self._cache.get(key)
        if known is not None:
            self.told.cached += 1
            return known
        async with gate:
            if self._is_spent():
                return None
            self.told.asked += 1
            try:
                completion = await self._ask(row, client)
            except AuthenticationError as error:
                raise LabellingError(
                    f"{self._committee.base_url} refuses the key; name the variable that holds it"
                    " with --key-env"
                ) from error
            except APIError:
                self.told.failed += 1
                return None
        self.told.tokens += completion.usage.total_tokens if completion.usage else 0
        sample = Sample(key=key, answer=_answer(completion), model=completion.model)
        self._cache.add(sample)
        return sample

    def _is_spent(self) -> bool:
        budget = self._committee.budget_tokens
        return budget is not None and self.told.tokens >= budget

    def _name(self, row: Row, number: int) -> str:
        given = self._committee
        asked = (row.messages, row.functions, given.model, given.temperature, number)
        return hashlib.sha256(msgspec.json.encode(asked)).hexdigest()[:32]

    async def _ask(self, row: Row, client: AsyncOpenAI) -> ChatCompletion:
        given = self._committee
        offered: dict[str, Any] = (
            {"tools": [{"type": "function", "function": f} for f in _wire(row.functions)]}
            if row.functions
            else {}
        )
        completion: ChatCompletion = await client.chat.completions.create(
            model=given.model,
            messages=_wire(row.messages),
            temperature=given.temperature,
            max_tokens=given.max_tokens,
            **offered,
        )
        return completion


def is_in_doubt(row: Row) -> bool:
    """Whether a committee should look at a row. What a person demonstrated is in no doubt."""
    return row.label.kind != "human" and (row.label.disputed or not row.label.is_trusted)


def relabelled(row: Row, samples: Sequence[Sample]) -> Row | None:
    """The row with the answer of most samples; None where none of them is valid.

    A sample that breaks the tools' schemas has no vote, but counts: it is no agreement. Texts are
    one answer, "calls nothing"; of equal shares the one that was given first wins.
    """
    votes: dict[object, list[Sample]] = defaultdict(list)
    for sample in samples:
        if _is_valid(row, sample.answer):
            calls = [call.function for call in sample.answer.tool_calls]
            votes[stance(calls, "exact") if calls else None].append(sample)
    if not votes:
        return None
    chosen = max(votes.values(), key=len)
    answer = chosen[0].answer
    calls = [call.function for call in answer.tool_calls]
    made = replace(row, calls=calls, text=answer.text, accepted=[])
    label = Label(
        kind="relabel",
        by=chosen[0].model,
        agreement=len(chosen) / len(samples),
        tool_outcome=row.label.tool_outcome if _same(row, made) else None,
        approved=row.label.approved if _same(row, made) else None,
    )
    return replace(made, label=label)


def _is_valid(row: Row, answer: Answer) -> bool:
    if answer.finish_reason == "length" or not (answer.tool_calls or answer.text):
        return False
    if not answer.tool_calls:
        return True
    tools = [Tool("function", function) for function in row.functions]
    request = ChatRequest(model="", messages=row.messages, tools=tools)
    return check(answer.tool_calls, request) is None


def _same(one: Row, other: Row) -> bool:
    return compare(_as_answer(one), _as_answer(other)).agrees


def _as_answer(row: Row) -> Answer:
    return Answer(text=row.text, tool_calls=[ToolCall("", call) for call in row.calls])


def _answer(completion: ChatCompletion) -> Answer:
    if not completion.choices:
        return Answer()
    choice = completion.choices[0]
    calls = [
        ToolCall(call.id, FunctionCall(call.function.name, call.function.arguments))
        for call in choice.message.tool_calls or ()
        if call.type == "function"
    ]
    return Answer(
        text=choice.message.content or "", tool_calls=calls, finish_reason=choice.finish_reason
    )


def _wire(of: object) -> Any:
    """As a client's JSON would hold it; raw parts, such as schemas, are decoded on the way."""
    return msgspec.json.decode(msgspec.json.encode(of))
