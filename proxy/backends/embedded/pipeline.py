"""One model with its adapters, generating for many requests at once in a process of its own.

The proxy's end of the wire: it starts the worker, sends requests as token ids (so that trainer and
engine share them by construction), and hands each step to the request that waits for it.
"""

from __future__ import annotations

import asyncio
import itertools
import os
import random
import sys
from collections.abc import AsyncGenerator, Sequence
from pathlib import Path
from typing import TypeAlias

import msgspec

import proxy
from proxy.backends.embedded.grammar import UnusableConstraint, plan
from proxy.backends.embedded.wire import (
    HEAD_BYTES,
    Cancel,
    Command,
    Died,
    Loaded,
    Progress,
    Report,
    Settings,
    Start,
    Step,
    frame,
    length,
)
from proxy.protocol.formats.constraint import Constraint

__all__ = [
    "EngineBusy",
    "EngineError",
    "EngineFailed",
    "Pipeline",
    "PromptTooLong",
    "Sampling",
    "Step",
]

LOADING = 120.0
"""Seconds until a worker must have loaded its model (4 s measured; a cold disk is slower)."""
SILENCE = 60.0
"""Seconds without a report, while requests run, after which a worker counts as hung. Chosen: a step
takes at most 0.3 s on two busy cores."""
GOODBYE = 5.0
"""Seconds that a worker may take to end by itself."""


class EngineError(Exception):
    """The embedded engine gives no answer; the classes below say why."""


class EngineBusy(EngineError):
    """As many requests run and wait as are allowed."""


class PromptTooLong(EngineError):
    """The prompt leaves no room for an answer."""


class EngineFailed(EngineError):
    """The worker failed, hung or would not finish the request."""


class Sampling(msgspec.Struct, frozen=True, kw_only=True):
    """How to choose tokens, and when to stop."""

    max_tokens: int
    """Cut to what the context has room for."""
    stop_ids: tuple[int, ...]
    """Tokens that end the answer, besides the model's own end of sequence."""
    temperature: float = 0.0
    """0 takes the most probable token."""
    top_p: float = 1.0
    seed: int | None = None
    """None draws one. Equal seeds give equal answers only while nothing else runs: the engine has
    one random generator for all its requests."""
    frequency_penalty: float = 0.0
    presence_penalty: float = 0.0
    logprobs: bool = False
    constraint: Constraint | None = None

    def __post_init__(self) -> None:
        if self.max_tokens < 1:
            raise ValueError(f"max_tokens must be at least 1, got {self.max_tokens}")


_Queue: TypeAlias = "asyncio.Queue[Step | EngineFailed]"


class Pipeline:
    """A worker and the requests that it runs. Made by `open`; belongs to one event loop."""

    def __init__(self, process: asyncio.subprocess.Process, loaded: Loaded, limit: int) -> None:
        self._process = process
        self._loaded = loaded
        self._limit = limit
        self._waiting: dict[int, _Queue] = {}
        self._ids = itertools.count()
        self._failure: EngineFailed | None = None
        self._patience: asyncio.Timeout | None = None
        self._running = 0
        self._reader = asyncio.create_task(self._read(), name="embedded-reports")

    @classmethod
    async def open(
        cls,
        base: Path,
        model: Path,
        *,
        kv_mib: int = 512,
        max_running: int = 16,
        max_waiting: int = 64,
        threads: int | None = None,
    ) -> Pipeline:
        """Start a worker and wait until it has loaded the model; EngineFailed when it does not.

        `model`: a directory that graph.write has filled, of the GGUF file `base`.
        """
        settings = Settings(
            base=str(base),
            model=str(model),
            kv_mib=kv_mib,
            max_running=max_running,
            threads=threads,
        )
        process = await _spawn(settings)
        try:
            return cls(process, await _loaded(process, model), max_running + max_waiting)
        except BaseException:
            await _end(process)
            raise

    @property
    def is_broken(self) -> bool:
        """Whether no request will ever be answered again; close it and open another."""
        return self._failure is not None

    @property
    def running(self) -> int:
        """Unfinished requests in the worker, by its last report."""
        return self._running

    @property
    def context(self) -> int:
        """Longest prompt and answer together, in tokens."""
        return self._loaded.context

    @property
    def pid(self) -> int:
        """Process id of the worker."""
        return self._process.pid

    async def generate(
        self, prompt: Sequence[int], sampling: Sampling, lane: int = 0
    ) -> AsyncGenerator[Step, None]:
        """The answer to a prompt of token ids, step by step; the last step has a `finish`.

        `lane`: which of the model's adapters answers; 0: the base.

        Closing the generator stops the worker's work on it: use contextlib.aclosing. Raises
        EngineBusy, PromptTooLong or EngineFailed; ValueError for ids outside the vocabulary and
        for a constraint that contradicts itself.
        """
        start = self._request(prompt, sampling, lane)
        steps: _Queue = asyncio.Queue()
        self._waiting[start.id] = steps
        self._expect_reports()
        try:
            self._send(start)
            while True:
                step = await steps.get()
                if isinstance(step, EngineFailed):
                    raise step
                yield step
                if step.finish is not None:
                    return
        finally:
            if self._waiting.pop(start.id, None) is not None:
                self._send(Cancel(start.id))

    async def close(self) -> None:
        """End the worker; requests in flight fail with EngineFailed."""
        # First what needs no waiting: if this task is cancelled now, the worker ends all the same.
        self._fail("the engine was closed")
        if self._process.stdin is not None:
            self._process.stdin.close()
        self._reader.cancel()
        await asyncio.wait([self._reader])
        await _end(self._process)

    def _request(self, prompt: Sequence[int], sampling: Sampling, lane: int) -> Start:
        """The request as the worker reads it, checked: the engine itself checks next to nothing."""
        if self._failure is not None:
            raise EngineFailed(str(self._failure))
        if len(self._waiting) >= self._limit:
            raise EngineBusy(f"{self._limit} requests run or wait already")
        room = self._loaded.context - len(prompt)
        if room < 1:
            raise PromptTooLong(
                f"prompt of {len(prompt)} tokens, the context has {self._loaded.context}"
            )
        if not prompt or not 0 <= min(prompt) <= max(prompt) < self._loaded.vocabulary:
            raise ValueError(
                f"prompt is empty or has ids outside 0 to {self._loaded.vocabulary - 1}"
            )
        # How graph.py wants to be told the lane.
        first = prompt[0] + lane * self._loaded.vocabulary
        return _start(next(self._ids), [first, *prompt[1:]], sampling, room)

    def _send(self, command: Command) -> None:
        # What waits in the pipe is bounded by the number of requests; that the worker is dead, the
        # reader finds out.
        if self._process.stdin is not None and not self._process.stdin.is_closing():
            self._process.stdin.write(frame(command))

    async def _read(self) -> None:
        """Hand out reports until the worker ends, fails or falls silent."""
        try:
            while True:
                async with asyncio.timeout(SILENCE if self._waiting else None) as self._patience:
                    report = await _receive(self._process)
                self._hand_out(report)
        except TimeoutError:
            self._process.kill()
            self._fail(f"the worker was silent for {SILENCE:.0f} s")
        except EngineFailed as error:
            self._fail(str(error))
        finally:
            # Whatever ended the loop, nobody may wait for ever.
            self._fail("the worker's reports are not read any more")

    def _expect_reports(self) -> None:
        """From now on silence counts, if nothing was running before."""
        # None before the reader's first turn: it then sees this request and counts by itself.
        if self._patience is not None and self._patience.when() is None:
            self._patience.reschedule(asyncio.get_running_loop().time() + SILENCE)

    def _hand_out(self, report: Report) -> None:
        match report:
            case Progress(steps=steps, dropped=dropped, running=running):
                self._running = running
                for id, step in steps:
                    self._deliver(id, step, last=step.finish is not None)
                for id, reason in dropped:
                    self._deliver(id, EngineFailed(reason), last=True)
            case Died(reason=reason):
                raise EngineFailed(reason)

    def _deliver(self, id: int, step: Step | EngineFailed, *, last: bool) -> None:
        # A request that was cancelled a moment ago is not waiting any more.
        queue = self._waiting.pop(id, None) if last else self._waiting.get(id)
        if queue is not None:
            queue.put_nowait(step)

    def _fail(self, reason: str) -> None:
        self._failure = self._failure or EngineFailed(reason)
        self._running = 0
        for id in list(self._waiting):
            self._deliver(id, EngineFailed(reason), last=True)


def _start(id: int, prompt: Sequence[int], sampling: Sampling, room: int) -> Start:
    try:
        grammar = plan(sampling.constraint) if sampling.constraint is not None else None
    except UnusableConstraint as error:
        raise ValueError(str(error)) from error
    return Start(
        id=id,
        prompt=tuple(prompt),
        max_tokens=min(sampling.max_tokens, room),
        temperature=sampling.temperature,
        top_p=sampling.top_p,
        seed=random.getrandbits(31) if sampling.seed is None else sampling.seed % 2**31,
        frequency_penalty=sampling.frequency_penalty,
        presence_penalty=sampling.presence_penalty,
        logprobs=sampling.logprobs,
        stop_ids=sampling.stop_ids,
        grammar=grammar,
    )


async def _spawn(settings: Settings) -> asyncio.subprocess.Process:
    # The worker must find this very package, also where it is not installed.
    root = str(Path(proxy.__file__).parents[1])
    paths = os.pathsep.join(filter(None, [root, os.environ.get("PYTHONPATH")]))
    return await asyncio.create_subprocess_exec(
        *(sys.executable, "-m", "proxy.backends.embedded.worker"),
        msgspec.json.encode(settings).decode(),
        stdin=asyncio.subprocess.PIPE,
        stdout=asyncio.subprocess.PIPE,
        env=os.environ | {"PYTHONPATH": paths},
    )


async def _loaded(process: asyncio.subprocess.Process, model: Path) -> Loaded:
    try:
        async with asyncio.timeout(LOADING):
            report = await _receive(process)
    except TimeoutError:
        raise EngineFailed(f"{model} was not loaded within {LOADING:.0f} s") from None
    match report:
        case Loaded():
            return report
        case Died(reason=reason):
            raise EngineFailed(f"{model} cannot be loaded: {reason}")
    raise EngineFailed(f"the worker for {model} began with {type(report).__name__}")


_REPORTS = msgspec.msgpack.Decoder(Report)


async def _receive(process: asyncio.subprocess.Process) -> Report:
    assert process.stdout is not None
    try:
        head = await process.stdout.readexactly(HEAD_BYTES)
        content = await process.stdout.readexactly(length(head))
    except asyncio.IncompleteReadError:
        raise EngineFailed("the worker ended") from None
    report: Report = _REPORTS.decode(content)
    return report


async def _end(process: asyncio.subprocess.Process) -> None:
    """Let the worker end by closing its stdin; kill it when it does not."""
    if process.stdin is not None:
        process.stdin.close()
    try:
        async with asyncio.timeout(GOODBYE):
            await process.wait()
    except TimeoutError:
        process.kill()
        await process.wait()
