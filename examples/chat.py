"""Three ways to ask Headrace with the OpenAI SDK: plain, with tools, streamed; and who answered.

make serve                                        # in one terminal
.venv/bin/python examples/chat.py                 # in another; `pip install openai` elsewhere
"""

from __future__ import annotations

import sys
from collections.abc import Mapping

from openai import OpenAI
from openai.types.chat import ChatCompletionToolParam
from tools import API, BOOKINGS


def main(base_url: str = "http://127.0.0.1:8080/v1") -> None:
    client = OpenAI(base_url=base_url, api_key="none")
    plain(client, "What is the capital of France?")
    call(client, "Find the least common multiple of 18 and 12.", API)
    call(client, "Show me the first page of all countries", API)
    call(client, "What is the schedule of sport 4 on 2025-03-07?", API)
    streamed(
        client, "I need a bus from Fresno, CA to Los Angeles on the 10th of March 2023.", BOOKINGS
    )


def plain(client: OpenAI, question: str) -> None:
    """A chat without tools: the base model answers."""
    raw = client.chat.completions.with_raw_response.create(
        model="gpt-4o", messages=[{"role": "user", "content": question}], max_tokens=60
    )
    show(question, raw.parse().choices[0].message.content, raw.headers)


def call(client: OpenAI, question: str, tools: list[ChatCompletionToolParam]) -> None:
    """A request with tools: the adapter of their domain answers, checked against their schemas."""
    raw = client.chat.completions.with_raw_response.create(
        model="gpt-4o", messages=[{"role": "user", "content": question}], tools=tools
    )
    message = raw.parse().choices[0].message
    calls = [f"{c.function.name}({c.function.arguments})" for c in message.tool_calls or ()]  # type: ignore[union-attr]
    show(question, " ".join(calls) or message.content, raw.headers)


def streamed(client: OpenAI, question: str, tools: list[ChatCompletionToolParam]) -> None:
    """The same as a stream: a call is sent once it is complete and valid."""
    with client.chat.completions.with_streaming_response.create(
        model="gpt-4o", messages=[{"role": "user", "content": question}], tools=tools, stream=True
    ) as response:
        chunks = list(response.parse())
    deltas = [choice.delta for chunk in chunks for choice in chunk.choices]
    calls = [c.function for delta in deltas for c in delta.tool_calls or () if c.function]
    name, arguments = (
        "".join(getattr(c, part) or "" for c in calls) for part in ("name", "arguments")
    )
    said = f"{name}({arguments})" if name else "".join(delta.content or "" for delta in deltas)
    show(f"{question} (streamed, {len(chunks)} chunks)", said, response.headers)


def show(question: str, answer: str | None, headers: Mapping[str, str]) -> None:
    """The answer, and the domain, backend and adapter that gave it."""
    who = [headers.get(f"x-headrace-{part}", "base") for part in ("domain", "backend", "adapter")]
    print(f"› {question}\n  {answer}\n  [{' · '.join(who)}]\n")


if __name__ == "__main__":
    main(*sys.argv[1:])
