"""Reading an engine's text as it comes: what is text for the client, and what is a tool call.

Text goes on at once, except for what might be the beginning of a call or of a stop string. From
where a call begins everything is kept until the answer is whole, and then parsed by the format.
"""

from __future__ import annotations

from collections.abc import Sequence

from proxy.backends.base import Call, Event, Text
from proxy.errors import InvalidAnswer
from proxy.protocol.formats.base import Format


class Reader:
    """Reads one answer. `format` None: the answer is text whatever it says."""

    def __init__(self, format: Format | None, stops: Sequence[str] = ()) -> None:
        self._format = format
        self._opening = format.opening if format is not None else ""
        self._stops = [stop for stop in stops if stop]
        self._held = ""
        self._call = ""
        self.stopped = False
        """Whether a stop string has ended the answer: what comes after it is not read."""

    def feed(self, piece: str) -> list[Event]:
        """The events that a piece of text completes."""
        if self.stopped:
            return []
        if self._call:
            self._call += piece
            return []
        self._held += piece
        return self._text(self._free())

    def end(self) -> list[Event]:
        """The events that were waiting for the answer's end: text held back, and the calls.

        Raises InvalidAnswer for a call that was cut, or that is none after all: neither as a call
        nor as a text would it be of use to a client.
        """
        if not self._call:
            return self._text(len(self._held))
        assert self._format is not None
        parsed = self._format.parse(self._call)
        if parsed.broken:
            raise InvalidAnswer("the answer ends inside a tool call", "broken_call")
        return [Call(call) for call in parsed.calls]

    def _free(self) -> int:
        """How much of the held text may go on; a whole stop string or opening ends it there."""
        marker, found = self._first()
        if marker and marker == self._opening:
            self._call, self._held = self._held[found:], self._held[:found]
            return found
        if marker:
            self.stopped = True
            self._held = self._held[:found]
            return found
        return len(self._held) - max(map(self._begun, (*self._stops, self._opening)), default=0)

    def _first(self) -> tuple[str, int]:
        """The marker that is whole first, and where it begins; "" for none."""
        places = [(m, self._held.find(m)) for m in (*self._stops, self._opening) if m]
        found = [(m, at) for m, at in places if at >= 0]
        return min(found, key=lambda f: (f[1] + len(f[0]), f[1]), default=("", -1))

    def _begun(self, marker: str) -> int:
        """Characters at the end of the held text that may be the beginning of `marker`."""
        longest = min(len(marker) - 1, len(self._held))
        return next((n for n in range(longest, 0, -1) if marker.startswith(self._held[-n:])), 0)

    def _text(self, length: int) -> list[Event]:
        text, self._held = self._held[:length], self._held[length:]
        return [Text(text)] if text else []
