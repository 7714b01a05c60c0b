"""Server-sent events, incrementally: bytes in, events out.

Source: WHATWG HTML, 9.2.6 "Interpreting an event stream". Only `data` fields are kept;
OpenAI-style streams use no others.
"""

from __future__ import annotations

from collections.abc import Iterator

DONE = b"[DONE]"
"""Data of the event that ends an OpenAI stream."""

MAX_EVENT = 8 * 1024 * 1024
"""Bytes that an event may have. Chosen: far above any chunk of a completion, far below harm."""


class EventTooLarge(ValueError):
    """The stream holds an event of more bytes than we are willing to keep."""


def encode(data: bytes) -> bytes:
    """One event with this data, ready to be sent.

    A line end in the data starts a new `data` field, and is read back as "\\n".
    """
    if b"\n" not in data and b"\r" not in data:
        return b"data: " + data + b"\n\n"
    lines = data.replace(b"\r\n", b"\n").replace(b"\r", b"\n").split(b"\n")
    return b"".join(b"data: " + line + b"\n" for line in lines) + b"\n"


class EventDecoder:
    """Takes a stream in pieces of any size, gives the data of each event as it is complete.

    An event without its blank line is not given: by the standard, an end of the stream discards it.
    """

    def __init__(self, max_event: int = MAX_EVENT) -> None:
        self._max_event = max_event
        self._line: list[bytes] = []
        self._data: list[bytes] = []
        self._held = 0
        self._after_cr = False
        self._at_start = True

    def feed(self, chunk: bytes) -> list[bytes]:
        """The data of the events that this chunk completes.

        Raises EventTooLarge, after which the decoder is of no more use.
        """
        return [event for line in self._lines(chunk) if (event := self._take(line))]

    def _lines(self, chunk: bytes) -> Iterator[bytes]:
        if not chunk:
            return
        if self._after_cr:
            chunk = chunk.removeprefix(b"\n")
        # A "\r" that ends a chunk ends a line now; a "\n" that follows belongs to it.
        self._after_cr = chunk.endswith(b"\r")
        for piece in chunk.splitlines(keepends=True):
            self._hold(piece)
            if piece.endswith((b"\n", b"\r")):
                yield self._whole_line()

    def _hold(self, piece: bytes) -> None:
        self._held += len(piece)
        if self._held > self._max_event:
            raise EventTooLarge(f"an event of the stream is larger than {self._max_event} bytes")
        self._line.append(piece)

    def _whole_line(self) -> bytes:
        line = b"".join(self._line).rstrip(b"\r\n")
        self._line.clear()
        if self._at_start:
            self._at_start = False
            line = line.removeprefix(b"\xef\xbb\xbf")
        return line

    def _take(self, line: bytes) -> bytes:
        """Add a line to the event at hand; the event's data if the line ends it, else b""."""
        if not line:
            event = b"\n".join(self._data)
            self._data.clear()
            self._held = 0
            return event
        name, _, value = line.partition(b":")
        if name == b"data":
            self._data.append(value.removeprefix(b" "))
        return b""
