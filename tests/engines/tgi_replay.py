"""TGI's recorded responses on a real socket.

The recordings are upstream's own (huggingface/text-generation-inference, Apache-2.0), not part of
this repository: TGI_RECORDINGS names the directory that holds `snapshots/`, `legacy/`, `derived/`
and `requests.json`.
"""

from __future__ import annotations

import json
import os
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pytest
from aiohttp import web

RECORDINGS = Path(os.environ.get("TGI_RECORDINGS", "nowhere"))
needs_recordings = pytest.mark.skipif(
    not (RECORDINGS / "requests.json").exists(),
    reason="TGI_RECORDINGS names no directory of recorded TGI responses",
)


@dataclass
class Replay:
    """A server whose every answer is the same recording."""

    content: object
    """JSON of a whole answer, or the list of a stream's events."""
    status: int = 200
    content_type: str = "application/json"
    spaced: bool = True
    """Whether a space follows `data:`; older servers leave it out."""
    url: str = ""
    bodies: list[dict[str, object]] = field(default_factory=list)

    async def answer(self, request: web.Request) -> web.StreamResponse:
        self.bodies.append(await request.json())
        if isinstance(self.content, list):
            return web.Response(body=self.stream(), content_type="text/event-stream")
        content = self.content if isinstance(self.content, str) else json.dumps(self.content)
        return web.Response(text=content, status=self.status, content_type=self.content_type)

    def stream(self) -> bytes:
        colon = "data: " if self.spaced else "data:"
        assert isinstance(self.content, list)
        events = [f"{colon}{json.dumps(event)}\n\n" for event in self.content]
        return (":keep-alive\n\n" + "".join([*events, f"{colon}[DONE]\n\n"])).encode()


@asynccontextmanager
async def replaying(replay: Replay) -> AsyncIterator[Replay]:
    """The recording on a free port of this machine; its `url` is set."""
    app = web.Application()
    app.add_routes([web.post("/{path:.*}", replay.answer)])
    runner = web.AppRunner(app, shutdown_timeout=0.01)
    await runner.setup()
    await web.TCPSite(runner, "127.0.0.1", 0).start()
    replay.url = f"http://127.0.0.1:{runner.addresses[0][1]}"
    try:
        yield replay
    finally:
        await runner.cleanup()


def recorded(name: str) -> Any:
    """A recording as it was saved."""
    return json.loads((RECORDINGS / name).read_text())


def on_the_wire(value: Any) -> Any:
    """A recording without the nulls that the recording client put into messages and deltas."""
    if isinstance(value, list):
        return [on_the_wire(item) for item in value]
    if not isinstance(value, dict):
        return value
    return {
        key: bare(item) if key in ("delta", "message") else on_the_wire(item)
        for key, item in value.items()
    }


def bare(said: dict[str, Any]) -> dict[str, Any]:
    return {key: item for key, item in said.items() if item is not None}


def text_of(recording: Any) -> str:
    """All content of a recording, streamed or whole."""
    events = recording if isinstance(recording, list) else [recording]
    said = [c.get("delta") or c["message"] for event in events for c in event["choices"]]
    return "".join(part.get("content") or "" for part in said)
