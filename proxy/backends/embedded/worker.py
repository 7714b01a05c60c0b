"""The worker process: one OpenVINO GenAI pipeline, fed through stdin, read through stdout.

Run as `python -m proxy.backends.embedded.worker SETTINGS` with wire.Settings as JSON. One thread:
it sleeps in `select` while there is nothing to generate, and looks for commands between two steps
otherwise. It ends when stdin does, so that it cannot outlive the proxy.
"""

from __future__ import annotations

import ctypes
import os
import select
import signal
import sys
from collections.abc import Iterator
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

import msgspec
import numpy as np
import openvino as ov
import openvino_genai as genai

from proxy.backends.embedded.grammar import configuration
from proxy.backends.embedded.header import LANES, ModelShape
from proxy.backends.embedded.wire import (
    Cancel,
    Command,
    CommandDecoder,
    Died,
    Loaded,
    Progress,
    Report,
    Settings,
    Start,
    Step,
    frame,
)

BLOCK = 32
"""Tokens of a KV block on the CPU (OpenVINO's paged attention)."""

_FINISH: dict[genai.GenerationFinishReason, Literal["stop", "length"]] = {
    genai.GenerationFinishReason.STOP: "stop",
    genai.GenerationFinishReason.LENGTH: "length",
}


def block_bytes(shape: ModelShape) -> int:
    """Bytes of one KV block with 16-bit keys and values, the memory of lanes included."""
    heads = shape.layers * shape.kv_heads * shape.head_size + LANES
    return BLOCK * 2 * 2 * heads


@dataclass
class _Running:
    """A request in the engine."""

    handle: genai.py_openvino_genai.GenerationHandle
    stops: frozenset[int]
    logprobs: bool


class Engine:
    """The pipeline and the requests in it."""

    def __init__(self, settings: Settings) -> None:
        shape = ModelShape.read(Path(settings.base))
        blocks = max(settings.kv_mib * 2**20 // block_bytes(shape), 8)
        self._pipeline = genai.ContinuousBatchingPipeline(
            settings.model,
            genai.Tokenizer(settings.base),
            _scheduler(settings, blocks),
            "CPU",
            **_properties(settings),
        )
        _return_free_memory()
        # The end-of-sequence token of the file always stops an answer, asked for or not.
        self._end = frozenset({self._pipeline.get_tokenizer().get_eos_token_id()})
        self._running: dict[int, _Running] = {}
        self._refused: list[tuple[int, str]] = []
        # A lone request must fit into the cache, with a block to spare for the step ahead.
        self.loaded = Loaded(min(shape.context, (blocks - 2) * BLOCK), shape.vocabulary)

    @property
    def is_idle(self) -> bool:
        """Whether a step would do nothing."""
        return not self._pipeline.has_non_finished_requests()

    def obey(self, command: Command) -> None:
        """Start or cancel; what is cancelled leaves the engine with the next step."""
        match command:
            case Start(id=id):
                try:
                    self._start(command)
                except RuntimeError as error:
                    # Refused before anything was scheduled: the others go on.
                    self._refused.append((id, str(error)))
            case Cancel(id=id):
                if id in self._running:
                    self._running.pop(id).handle.cancel()

    def _start(self, start: Start) -> None:
        prompt = ov.Tensor(np.array([start.prompt], dtype=np.int64))
        stops = self._end.union(start.stop_ids)
        handle = self._pipeline.add_request(start.id, prompt, _generation(start, stops))
        self._running[start.id] = _Running(handle, stops, start.logprobs)

    def step(self) -> Progress:
        """One token for every running request, or a portion of their prompts."""
        self._pipeline.step()
        steps = tuple(self._read())
        given_up = list(self._given_up())
        for id, _ in given_up:
            del self._running[id]
        refused, self._refused = self._refused, []
        return Progress(steps, (*refused, *given_up), len(self._running))

    def _read(self) -> Iterator[tuple[int, Step]]:
        for id, running in list(self._running.items()):
            if (step := _next(running)) is not None:
                yield id, step
                if step.finish is not None:
                    del self._running[id]

    def _given_up(self) -> Iterator[tuple[int, str]]:
        for id, running in self._running.items():
            status = running.handle.get_status()
            if status != genai.GenerationStatus.RUNNING:
                yield (
                    id,
                    f"the engine gave the request up ({status.name}); is the KV cache too small?",
                )


def _next(running: _Running) -> Step | None:
    """All that a request has generated since the last look; None when that is nothing."""
    ids: list[int] = []
    logprobs: list[float] = []
    finish = genai.GenerationFinishReason.NONE
    while running.handle.can_read():
        for output in running.handle.read().values():
            ids += output.generated_ids
            logprobs += output.generated_log_probs
            finish = output.finish_reason
    if not ids and finish == genai.GenerationFinishReason.NONE:
        return None
    if finish == genai.GenerationFinishReason.STOP and ids and ids[-1] in running.stops:
        del ids[-1], logprobs[-1:]
    return Step(tuple(ids), tuple(logprobs) if running.logprobs else (), _FINISH.get(finish))


def _return_free_memory() -> None:
    """Give back what loading needed for a moment: 100 MB of 450, which glibc would keep."""
    with suppress(OSError, AttributeError):  # not glibc
        ctypes.CDLL("libc.so.6").malloc_trim(0)


def _scheduler(settings: Settings, blocks: int) -> genai.SchedulerConfig:
    scheduler = genai.SchedulerConfig()
    scheduler.num_kv_blocks = blocks
    scheduler.max_num_seqs = settings.max_running
    scheduler.enable_prefix_caching = True
    return scheduler


def _properties(settings: Settings) -> dict[str, object]:
    # In the default of 8 bits a step of sixteen sequences takes a third longer (docs/LOG.md).
    properties: dict[str, object] = {"KV_CACHE_PRECISION": "bf16" if _has_bf16() else "f16"}
    if settings.threads is not None:
        properties["INFERENCE_NUM_THREADS"] = settings.threads
    return properties


def _has_bf16() -> bool:
    return "BF16" in ov.Core().get_property("CPU", "OPTIMIZATION_CAPABILITIES")


def _generation(start: Start, stops: frozenset[int]) -> genai.GenerationConfig:
    config = genai.GenerationConfig()
    config.max_new_tokens = start.max_tokens
    config.do_sample = start.temperature > 0
    if config.do_sample:
        config.temperature = start.temperature
        config.top_p = start.top_p
        config.rng_seed = start.seed
    config.frequency_penalty = start.frequency_penalty
    config.presence_penalty = start.presence_penalty
    config.logprobs = int(start.logprobs)
    config.stop_token_ids = set(stops)  # a grammar lets these follow a complete answer
    if start.grammar is not None:
        config.structured_output_config = configuration(start.grammar)
    return config


def serve(settings: Settings, stdin: int, stdout: int) -> None:
    """Obey commands from one descriptor and report to the other, until the first is closed."""
    try:
        engine = Engine(settings)
        _send(stdout, engine.loaded)
        for commands in _arriving(stdin, engine):
            for command in commands:
                engine.obey(command)
            if commands or not engine.is_idle:
                _send(stdout, engine.step())
    except Exception as error:
        # Whatever it was, the scheduler's state is unknown: report and end, a new worker is cheap.
        _send(stdout, Died(f"{type(error).__name__}: {error}"))
        raise SystemExit(1) from None


def _arriving(stdin: int, engine: Engine) -> Iterator[list[Command]]:
    """The commands that have come; waits for some only while the engine is idle."""
    decoder = CommandDecoder()
    while True:
        readable, _, _ = select.select([stdin], [], [], None if engine.is_idle else 0)
        if not readable:
            yield []
            continue
        received = os.read(stdin, 1 << 20)
        if not received:
            return
        yield list(decoder.feed(received))


def _send(stdout: int, report: Report) -> None:
    rest = memoryview(frame(report))
    while rest:
        rest = rest[os.write(stdout, rest) :]


def main() -> None:
    """Keep stdout for frames: OpenVINO's own messages go to stderr."""
    # Ctrl-C reaches the whole process group; the proxy decides when its workers end.
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    stdout = os.dup(1)
    os.dup2(2, 1)
    with suppress(BrokenPipeError):  # The proxy is gone, and with it whoever could be told.
        serve(msgspec.json.decode(sys.argv[1], type=Settings), 0, stdout)


if __name__ == "__main__":
    main()
