"""The whole way: conversations that Azure answers, the embedded model in its shadow, feedback on
some, and a report whose counts are those that SQL finds in the record.

HEADRACE_CONVERSATIONS says how many; `make test-report` asks for 300.
"""

from __future__ import annotations

import asyncio
import os
import random
from math import lcm
from pathlib import Path

import msgspec
import pytest

from proxy.__main__ import main
from proxy.config import Config, load
from proxy.record import query
from proxy.record.archive import open_archive
from proxy.record.shelf import Shelf
from proxy.report.ab import Report
from tests.scripted import KEPT, Received, ScriptedCloud, Step, answer, completion, reachable
from tests.serving import serving
from tests.wire import Response, send

pytest.importorskip("openvino_genai", reason="needs the embedded extra")

CONVERSATIONS = int(os.environ.get("HEADRACE_CONVERSATIONS", "10"))
ADAPTERS = Path(__file__).parents[2] / "adapters"
TOOL = {
    "type": "function",
    "function": {
        "name": "least_common_multiple",
        "description": "Computes the least common multiple of two positive integers.",
        "parameters": {
            "type": "object",
            "properties": {"a": {"type": "integer"}, "b": {"type": "integer"}},
            "required": ["a", "b"],
        },
    },
}
ROUTES = """
version: 1
models: [gpt-4o]
backends:
  azure:
    kind: azure
    endpoint: {endpoint}
    api_key: s3cret
    models: {{gpt-4o: our-deployment}}
  local: {{kind: embedded, base_model: smollm2-135m-instruct, adapters: '{adapters}'}}
domains:
  api: {{plan: [azure], shadow: {{to: local, share: 1, max_waiting: 1000, deadline_s: 600}}}}
defaults: {{tools: api, chat: api}}
record: {{directory: record}}
"""


class Azure(ScriptedCloud):
    """A deployment that mostly calls the tool as it should: one in eight has the second number
    wrong, and thanks are answered in words."""

    def script_for(self, request: Received) -> tuple[Step, ...]:
        assert request.target == (
            "/openai/deployments/our-deployment/chat/completions?api-version=2024-10-21"
        )
        question = str(msgspec.json.decode(request.body)["messages"][-1]["content"])
        said = completion(_said(question), "stop" if "Thank" in question else "tool_calls")
        said["id"] = f"chatcmpl-{len(self.requests)}"
        said["usage"] = {"prompt_tokens": 90, "completion_tokens": 20, "total_tokens": 110}
        said["prompt_filter_results"] = [{"prompt_index": 0, "content_filter_results": {}}]
        return (answer(said, KEPT),)


def _said(question: str) -> dict[str, object]:
    if "Thank" in question:
        return {"role": "assistant", "content": "You are welcome."}
    a, b = (int(word) for word in question.replace(".", "").split() if word.isdigit())
    return _calling(a, b + (lcm(a, b) % 8 == 0))


def _calling(a: int, b: int) -> dict[str, object]:
    call = {"name": "least_common_multiple", "arguments": f'{{"b": {b}, "a": {a}.0}}'}
    calls = [{"id": "call_1", "type": "function", "function": call}]
    return {"role": "assistant", "content": None, "tool_calls": calls}


async def conversation(url: str, number: int) -> None:
    """One request, and for every third one what would have been right."""
    chance = random.Random(number)
    a, b = chance.randint(2, 60), chance.randint(2, 60)
    thanks = number % 5 == 4
    question = "Thank you!" if thanks else f"Find the least common multiple of {a} and {b}."
    response = await asked(url, number, question)
    assert response.status == 200
    if number % 3 == 0:
        right = {"content": "You are welcome."} if thanks else _calling(a, b)
        await judged(url, response.json["id"], right)


async def asked(url: str, number: int, question: str) -> Response:
    request = {
        "model": "gpt-4o",
        "messages": [{"role": "user", "content": question}],
        "tools": [TOOL],
    }
    headers = {"x-headrace-conversation": f"conversation-{number}"}
    return await send("POST", f"{url}/chat/completions", msgspec.json.encode(request), headers)


async def judged(url: str, exchange: str, right: dict[str, object]) -> None:
    feedback = {"exchange_id": exchange, "kind": "demonstration", "value": right}
    response = await send("POST", f"{url}/feedback", msgspec.json.encode(feedback))
    assert response.status == 200


async def shadowed(url: str, count: int) -> None:
    """Until so many shadows are recorded."""
    async with asyncio.timeout(3600):
        while True:
            lane = (await send("GET", url.replace("/v1", "/ready"))).json["shadows"]["api"]
            assert not lane["dropped"]
            if sum(lane["outcomes"].values()) == count:
                return
            await asyncio.sleep(0.2)


@pytest.fixture
async def routes(tmp_path: Path) -> Path:
    """Settings whose record has the conversations."""
    path = tmp_path / "routes.yaml"
    azure = Azure()
    async with reachable(azure):
        endpoint = azure.base_url.removesuffix("/v1")
        path.write_text(ROUTES.format(endpoint=endpoint, adapters=ADAPTERS))
        async with serving(load(path)) as url:
            for number in range(CONVERSATIONS):
                await conversation(url, number)
            await shadowed(url, CONVERSATIONS)
    return path


def found(routes: Path, sql: str) -> tuple[object, ...]:
    """The one row that a SELECT finds in the record."""
    config: Config = load(routes)
    assert config.record is not None
    shelf = Shelf(config.record.directory, open_archive(config.record))
    with query.opened(shelf) as connection:
        (row,) = (row for batch in query.run(connection, sql).batches() for row in batch)
    return row


BY_HAND = """
WITH said AS (
    SELECT e.id,
        (e.exchange::JSON)->'$.attempts[0].answer.tool_calls[0].function' AS cloud,
        (s.shadow::JSON)->'$.attempt.answer.tool_calls[0].function' AS local,
        coalesce(len(((s.shadow::JSON)->'$.attempt.answer.tool_calls')::JSON[]), 0) AS local_calls,
        (f.feedback::JSON)->'$.value.tool_calls[0].function' AS shown,
        f.id IS NOT NULL AS is_shown,
        s.total_s AS local_s, a.total_s AS cloud_s, a.cost_usd
    FROM exchanges e JOIN shadows s ON s.exchange_id = e.id
    JOIN attempts a ON a.exchange_id = e.id
    LEFT JOIN feedback f ON f.exchange_id = e.id),
numbers AS (
    SELECT *,
        cloud->>'name' AS cloud_name, local->>'name' AS local_name,
        ((cloud->>'arguments')::JSON->>'a')::DOUBLE AS cloud_a,
        ((cloud->>'arguments')::JSON->>'b')::DOUBLE AS cloud_b,
        ((local->>'arguments')::JSON->>'a')::DOUBLE AS local_a,
        ((local->>'arguments')::JSON->>'b')::DOUBLE AS local_b,
        ((shown->>'arguments')::JSON->>'a')::DOUBLE AS shown_a,
        ((shown->>'arguments')::JSON->>'b')::DOUBLE AS shown_b
    FROM said),
equal AS (
    SELECT *,
        (cloud IS NULL AND local IS NULL) OR coalesce(local_calls = 1 AND cloud_name = local_name
            AND cloud_a = local_a AND cloud_b = local_b, false) AS agrees,
        (cloud IS NULL AND shown IS NULL)
            OR coalesce(cloud_a = shown_a AND cloud_b = shown_b, false) AS cloud_right,
        (local IS NULL AND shown IS NULL) OR coalesce(local_calls = 1 AND local_a = shown_a
            AND local_b = shown_b, false) AS local_right
    FROM numbers)
SELECT count(*), count(*) FILTER (WHERE agrees),
    count(*) FILTER (WHERE cloud IS NULL),
    count(*) FILTER (WHERE cloud IS NULL AND local IS NOT NULL),
    count(*) FILTER (WHERE cloud IS NOT NULL AND local IS NULL),
    count(*) FILTER (WHERE is_shown),
    count(*) FILTER (WHERE is_shown AND cloud_right AND local_right),
    count(*) FILTER (WHERE is_shown AND cloud_right AND NOT local_right),
    count(*) FILTER (WHERE is_shown AND NOT cloud_right AND local_right),
    quantile_disc(local_s, 0.5), quantile_disc(cloud_s, 0.5), avg(cost_usd) * 1000
FROM equal
"""


async def test_the_reports_counts_are_those_of_the_record(routes: Path, tmp_path: Path):
    target = tmp_path / "report.json"
    options = ["--json", str(target), "--html", str(tmp_path / "report.html")]

    status = await asyncio.to_thread(
        main, ["report", "ab", "--domain", "api", *options, "--config", str(routes)]
    )

    by_hand = found(routes, BY_HAND)
    report = msgspec.json.decode(target.read_bytes(), type=Report)
    figures, accuracy = report.figures, report.figures.accuracy
    assert accuracy is not None
    assert status in (0, 10, 20, 30)
    assert (report.contest.candidate, report.contest.baseline) == ("local", "azure")
    assert report.left_out == {}
    assert by_hand[:6] == (
        figures.pairs,
        round((figures.agreement.value or 0) * figures.agreement.n),
        figures.calls[0].n,
        figures.kinds.get("false_call", 0),
        figures.kinds.get("missed_call", 0) + figures.kinds.get("no_answer", 0),
        accuracy.difference.n,
    )
    assert by_hand[6:9] == (accuracy.both, accuracy.only_baseline, accuracy.only_candidate)
    assert by_hand[9:] == pytest.approx(
        (figures.times[2].value, figures.times[0].value, figures.costs[0].value), abs=1e-5
    )
    assert figures.pairs == figures.conversations == CONVERSATIONS
