"""Asks the record for a page, without taking anything from requests."""

from __future__ import annotations

import asyncio
import sys
from collections.abc import Sequence
from typing import TypeAlias

import msgspec
import structlog
from cachetools import TTLCache

from proxy.config import Config
from proxy.dashboard.questions import (
    Agreements,
    AgreementsFound,
    Found,
    Look,
    Order,
    Question,
    Refusal,
    Savings,
    SavingsFound,
    Search,
    SearchFound,
    SeenFound,
    Traffic,
    TrafficFound,
    packed,
)

log = structlog.get_logger(__name__)

_ANSWERS: dict[type[Question], type[Found]] = {
    Traffic: TrafficFound,
    Savings: SavingsFound,
    Agreements: AgreementsFound,
    Search: SearchFound,
    Look: SeenFound,
}
_REMEMBERED = 64
"""Answers that are kept: each some 100 KiB."""
_LARGEST = 16 * 1024 * 1024
"""Bytes of an answer. Chosen: an exchange with all its messages, each cut, has less."""

Reply: TypeAlias = Found | Refusal


class Reading:
    """Runs the reader, one at a time, and remembers what it found. Made once."""

    def __init__(self, config: Config, local: Sequence[str]) -> None:
        """`local`: the backends that are at home."""
        self._config = config
        self._local = list(local)
        self._timeout = config.dashboard.read_timeout_s
        self._one = asyncio.Lock()
        self._kept: TTLCache[bytes, Reply] = TTLCache(_REMEMBERED, config.dashboard.cache_s)

    async def ask(self, question: Question) -> Reply:
        """What the record says; a Refusal where it says nothing, cannot be read, or takes too
        long."""
        if self._config.record is None:
            return Refusal(
                kind="record",
                told="Nothing is recorded: routes.yaml has no `record` section (docs/record.md).",
            )
        key = msgspec.json.encode(question)
        # One at a time, over all pages: whoever asks the same meanwhile finds it remembered.
        async with self._one:
            kept: Reply | None = self._kept.get(key)
            if kept is None:
                kept = await self._read(question)
                self._kept[key] = kept
        return kept

    def forget(self) -> None:
        """Something was added that the next answer should have."""
        self._kept.clear()

    async def _read(self, question: Question) -> Reply:
        assert self._config.record is not None
        order = Order(
            question=question,
            record=self._config.record,
            costs=self._config.costs,
            local=self._local,
        )
        try:
            async with asyncio.timeout(self._timeout):
                content = await _run(packed(order))
        except TimeoutError:
            return Refusal(
                kind="record",
                told=f"Reading the record took longer than {self._timeout:g} s and was given up."
                " Ask for a shorter time, or compact it: headrace record compact (docs/record.md).",
            )
        return _decoded(content, _ANSWERS[type(question)])


def _decoded(content: bytes, kind: type[Found]) -> Reply:
    try:
        return msgspec.json.decode(content, type=kind)
    except msgspec.ValidationError:
        return msgspec.json.decode(content, type=Refusal)
    except msgspec.DecodeError:
        return Refusal(kind="record", told="The record could not be read; the log says more.")


async def _run(order: bytes) -> bytes:
    """What the reader prints; it is killed when nobody waits any more."""
    process = await asyncio.create_subprocess_exec(
        *(sys.executable, "-m", "proxy.dashboard.reader"),
        stdin=asyncio.subprocess.PIPE,
        stdout=asyncio.subprocess.PIPE,
        stderr=asyncio.subprocess.PIPE,
        limit=_LARGEST,
    )
    try:
        content, complaint = await process.communicate(order)
    finally:
        if process.returncode is None:
            process.kill()
            await process.wait()
    if process.returncode:
        # The last line of a traceback names the error; what it was about stays unsaid.
        last = complaint.decode(errors="replace").strip().rpartition("\n")[2]
        log.error("dashboard_reader_failed", error=last.partition(":")[0][:200])
    return content
