"""Records of two backends whose truth is known."""

from __future__ import annotations

import random
from collections.abc import Iterator
from pathlib import Path

import msgspec

from proxy.protocol.exchange import Answer, Attempt
from proxy.protocol.openai import FunctionCall, ToolCall, Usage
from proxy.protocol.segments import Record
from tests.record.examples import NOW, exchange, feedback, shadowed

FIND = {
    "type": "function",
    "function": {
        "name": "find",
        "parameters": {
            "type": "object",
            "properties": {"city": {"type": "string"}, "seats": {"type": "integer"}},
            "required": ["city"],
        },
    },
}


def find(city: str, seats: int | float = 2) -> Answer:
    """A call of `find`."""
    arguments = msgspec.json.encode({"city": city, "seats": seats}).decode()
    return Answer(tool_calls=[ToolCall("call-1", FunctionCall("find", arguments))])


def told(text: str) -> Answer:
    """An answer in words."""
    return Answer(text=text, finish_reason="stop")


def attempt(backend: str, answer: Answer, **fields: object) -> Attempt:
    """A whole answer, half a second long."""
    whole: dict[str, object] = {
        "kind": "primary",
        "backend": backend,
        "outcome": "completed",
        "answer": answer,
        "usage": Usage.of(100, 20),
        "started_at": NOW,
        "total_s": 0.5,
    }
    return Attempt(**(whole | fields))


def request(question: str, *tools: dict[str, object]) -> msgspec.Raw:
    """A request that offers these tools; `find` where none are named."""
    body = {
        "model": "gpt-4o",
        "messages": [{"role": "user", "content": question}],
        "tools": list(tools) or [FIND],
    }
    return msgspec.Raw(msgspec.json.encode(body))


def pair(
    id: str, cloud: Answer, local: Answer, right: Answer | None = None, **fields: object
) -> list[Record]:
    """An exchange that the cloud answered, the local model in its shadow, and what is right."""
    at = float(str(fields.get("started_at", NOW)))
    first = attempt("azure", cloud, model="gpt-4o", started_at=at, cost_usd=0.001)
    second = attempt("local", local, kind="shadow", adapter="geo-v7", started_at=at, total_s=0.2)
    whole = {"request": request(f"Find {id}."), "conversation": f"conv-{id}", "domain": "geo"}
    asked = exchange(id, attempts=[first], **(whole | fields))
    records: list[Record] = [
        asked,
        shadowed(
            f"shadow-{id}",
            id,
            attempt=second,
            conversation=asked.conversation,
            domain=asked.domain,
            tenant=asked.tenant,
        ),
    ]
    if right is not None:
        said = {"kind": "demonstration", "value": right, "tenant": asked.tenant}
        records.append(feedback(f"feedback-{id}", id, given_at=at + 60, **said))
    return records


def simulated(
    count: int,
    *,
    cloud: float,
    local: float,
    demonstrated: float = 1.0,
    each: int = 1,
    alike: float = 0.0,
    seed: int = 0,
) -> Iterator[Record]:
    """Pairs of backends that are right with these probabilities, `each` to a conversation.

    With probability `alike` a pair has the same outcome as its conversation's first one. Wrong
    answers are of several kinds; two wrong ones never agree.
    """
    chance = random.Random(seed)
    for number in range(count):
        turn = number % each
        if turn == 0 or chance.random() >= alike:
            outcome = chance.random() < cloud, chance.random() < local
        right, wrong = find(f"city {number}"), chance.random()
        mistaken = told("Where?") if wrong < 0.3 else find(f"city {number}", 3)
        yield from pair(
            f"{number}",
            right if outcome[0] else find(f"town {number}"),
            right if outcome[1] else mistaken,
            right if chance.random() < demonstrated else None,
            started_at=NOW + 60 * number,
            conversation=f"conv-{number // each}",
            tenant="t",
        )


ROUTES = """
version: 1
models: [m]
backends:
  azure: {kind: openai, base_url: 'http://127.0.0.1:1/v1'}
  local: {kind: embedded, base_model: smollm2-135m-instruct}
domains: {geo: {plan: [local, azure]}}
defaults: {tools: geo, chat: geo}
record: {directory: record}
"""


def routes(directory: Path) -> Path:
    """Settings whose record is in `directory`/record."""
    path = directory / "routes.yaml"
    path.write_text(ROUTES)
    return path
