"""What the proxy and a worker process tell each other: frames of MessagePack, length first.

Why a process and not a thread: `step()` keeps Python's global lock while it computes, 15 to 120 ms
at a time, and an event loop in the same process would stand still for as long.
"""

from __future__ import annotations

import struct
from collections.abc import Iterator
from typing import Literal

import msgspec

from proxy.backends.embedded.grammar import Grammar

_LENGTH = struct.Struct("<I")
HEAD_BYTES = _LENGTH.size


class Settings(msgspec.Struct, frozen=True, kw_only=True):
    """What a worker needs to know once."""

    base: str
    """Path of the GGUF file that the model is made of, and that has its tokenizer."""
    model: str
    """Directory that holds the model."""
    kv_mib: int
    """MiB for the keys and values of running requests and of cached prefixes."""
    max_running: int
    """Requests in one batch; others wait in the engine."""
    threads: int | None
    """CPU threads; None lets OpenVINO choose (all cores)."""


class Step(msgspec.Struct, frozen=True):
    """A piece of an answer."""

    ids: tuple[int, ...]
    """Token ids, without the one that stopped the answer."""
    logprobs: tuple[float, ...]
    """Natural log probability of each id; empty when not asked for."""
    finish: Literal["stop", "length"] | None


class Start(msgspec.Struct, frozen=True, kw_only=True, tag=True):
    """Generate an answer."""

    id: int
    prompt: tuple[int, ...]
    max_tokens: int
    temperature: float
    top_p: float
    seed: int
    frequency_penalty: float
    presence_penalty: float
    logprobs: bool
    stop_ids: tuple[int, ...]
    grammar: Grammar | None


class Cancel(msgspec.Struct, frozen=True, tag=True):
    """Nobody waits for this answer any more."""

    id: int


class Loaded(msgspec.Struct, frozen=True, tag=True):
    """The model is in memory; requests may come."""

    context: int
    """Longest prompt and answer together, in tokens."""
    vocabulary: int


class Progress(msgspec.Struct, frozen=True, tag=True):
    """What one step of the engine gave; sent after every step, so that silence means trouble."""

    steps: tuple[tuple[int, Step], ...]
    """Pieces by request id."""
    dropped: tuple[tuple[int, str], ...]
    """Requests that the engine would not finish, and why."""
    running: int
    """Requests that are not finished."""


class Died(msgspec.Struct, frozen=True, tag=True):
    """The engine failed; the worker ends."""

    reason: str


Command = Start | Cancel
Report = Loaded | Progress | Died


def frame(message: Command | Report) -> bytes:
    """The message as bytes on the wire."""
    content = msgspec.msgpack.encode(message)
    return _LENGTH.pack(len(content)) + content


def length(head: bytes) -> int:
    """Bytes of content that follow a frame's head."""
    (size,) = _LENGTH.unpack(head)
    return int(size)


class CommandDecoder:
    """Bytes in any portions in, commands out."""

    def __init__(self) -> None:
        self._buffer = bytearray()
        self._decoder = msgspec.msgpack.Decoder(Command)

    def feed(self, received: bytes) -> Iterator[Command]:
        """The commands that are complete with these bytes."""
        self._buffer += received
        while len(self._buffer) >= HEAD_BYTES:
            end = HEAD_BYTES + length(bytes(self._buffer[:HEAD_BYTES]))
            if len(self._buffer) < end:
                return
            content = bytes(self._buffer[HEAD_BYTES:end])
            del self._buffer[:end]
            yield self._decoder.decode(content)
