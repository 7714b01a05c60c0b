"""An OpenAI endpoint whose answers a test chooses, question by question."""

from __future__ import annotations

import json
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass, field

import msgspec
from starlette.applications import Starlette
from starlette.requests import Request
from starlette.responses import JSONResponse, Response
from starlette.routing import Route

from proxy.protocol.openai import FunctionCall
from tests.serving import listening


@dataclass
class Server:
    """An OpenAI endpoint that answers each question as told."""

    base_url: str = ""
    calls: dict[str, list[FunctionCall]] = field(default_factory=dict)
    """Question → calls; without any the answer is text."""
    refuses: set[str] = field(default_factory=set)
    """Questions that get an error."""
    bodies: list[dict] = field(default_factory=list)
    subjects: set[str | None] = field(default_factory=set)
    backends: set[str | None] = field(default_factory=set)
    recorded: set[str | None] = field(default_factory=set)
    by: dict[str, str] = field(default_factory=dict)
    """What it tells of who answered."""
    turns: dict[str, list[list[FunctionCall]]] = field(default_factory=dict)
    """Question → the calls of its first answer, of its second, and so on."""

    async def answer(self, request: Request) -> Response:
        body = json.loads(await request.body())
        self.bodies.append(body)
        self.subjects.add(request.headers.get("x-headrace-adapter"))
        self.backends.add(request.headers.get("x-headrace-backend"))
        self.recorded.add(request.headers.get("x-headrace-record"))
        question = body["messages"][-1]["content"]
        if question in self.refuses:
            return JSONResponse({"error": {"message": "no"}}, status_code=500)
        if self.turns.get(question):
            return JSONResponse(completion(self.turns[question].pop(0)))
        return JSONResponse(completion(self.calls.get(question, [])), headers=self.by)


def completion(calls: list[FunctionCall]) -> dict[str, object]:
    message: dict[str, object] = {"role": "assistant", "content": None if calls else "No."}
    if calls:
        message["tool_calls"] = [
            {"id": f"c{n}", "type": "function", "function": msgspec.to_builtins(c)}
            for n, c in enumerate(calls)
        ]
    choice = {"index": 0, "message": message, "finish_reason": "stop"}
    return {
        "id": "x",
        "object": "chat.completion",
        "created": 1,
        "model": "m",
        "choices": [choice],
        "usage": {"prompt_tokens": 1, "completion_tokens": 1, "total_tokens": 2},
    }


@asynccontextmanager
async def answering() -> AsyncIterator[Server]:
    """One that is up, on a free port."""
    made = Server()
    app = Starlette(routes=[Route("/v1/chat/completions", made.answer, methods=["POST"])])
    async with listening(app) as base_url:
        made.base_url = base_url
        yield made
