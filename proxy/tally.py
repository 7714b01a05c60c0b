"""What an answer that is passed on unread says of itself: its model, and the tokens that it used.

Nothing else of it is looked at. Chats, completions, embeddings and responses tell both, whole or in
one of the last events of a stream.
"""

from __future__ import annotations

import msgspec

from proxy import sse
from proxy.protocol.loose import Counted, Details

_MOST = 8 * 1024 * 1024
"""Bytes of a whole answer that are kept until it is read. Chosen: as of a chat."""
_MARK = b'"usage"'


class _Used(msgspec.Struct):
    """Usage, in the words of completions or of responses."""

    prompt_tokens: int = 0
    completion_tokens: int = 0
    prompt_tokens_details: Details | None = None
    input_tokens: int = 0
    output_tokens: int = 0
    input_tokens_details: Details | None = None

    @property
    def counted(self) -> Counted:
        prompt = self.prompt_tokens or self.input_tokens
        completion = self.completion_tokens or self.output_tokens
        details = self.prompt_tokens_details or self.input_tokens_details
        return Counted(prompt, completion, prompt + completion, details)


class _Said(msgspec.Struct):
    usage: _Used | None = None
    model: str | None = None
    response: _Said | None = None
    """Where an event of a streamed response has them."""


class Tally:
    """Listens to one answer. What it cannot read tells nothing."""

    def __init__(self, content_type: str) -> None:
        self._is_json = content_type.startswith("application/json")
        is_stream = content_type.startswith("text/event-stream")
        self._events = sse.EventDecoder() if is_stream else None
        self._pieces: list[bytes] = []
        """Of a whole answer all pieces, of a stream the last event that speaks of usage."""
        self._size = 0

    def take(self, piece: bytes) -> bytes:
        """Listen to, and give back, a piece."""
        if self._events is not None:
            self._take_events(self._events, piece)
        elif self._is_json:
            self._size += len(piece)
            if self._size <= _MOST:
                self._pieces.append(piece)
        return piece

    def read(self) -> tuple[Counted | None, str | None]:
        """The usage and the model, each as far as it was told."""
        if self._size > _MOST:
            return None, None
        try:
            said = msgspec.json.decode(b"".join(self._pieces), type=_Said)
        except (ValueError, RecursionError):
            return None, None
        said = said.response or said
        return (None if said.usage is None else said.usage.counted), said.model

    def _take_events(self, events: sse.EventDecoder, piece: bytes) -> None:
        try:
            told = [event for event in events.feed(piece) if _MARK in event]
        except sse.EventTooLarge:
            self._events = None
        else:
            self._pieces = told[-1:] or self._pieces
