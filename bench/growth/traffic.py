"""What is asked, and the settings of who answers, at each place of an axis."""

from __future__ import annotations

import random
from collections.abc import Sequence
from pathlib import Path

import msgspec

from bench.gateways import bodies
from bench.gateways.bodies import MODEL
from proxy.protocol import adapter
from tests.engines import bundles

TOOLS = 5
"""Of a domain: so many but one by name, the last by a glob."""
_WORDS = "amber birch cedar delta ember fjord grove heath inlet jetty knoll ledge moor north"
WORDS = _WORDS.split()
_SETTINGS = """
version: 1
models: [{model}]
limits: {{max_in_flight: 4096}}
backends:
  engine:
    kind: vllm
    mode: chat
    plain: hermes
    base_model: {base}
    served_model: {model}
    replicas: ['http://127.0.0.1:{there}']
    adapters: adapters
    max_in_flight: 4096
  cloud: {{kind: openai, base_url: 'http://127.0.0.1:{there}/v1', max_connections: 4096}}
domains:
{domains}
  other: {{plan: [cloud]}}
defaults: {{tools: other, chat: other}}
record: {{directory: record}}
"""


def settings(domains: int, there: int) -> str:
    """routes.yaml with so many domains, in front of an engine on port `there`."""
    told = "\n".join(
        f"  d{number}: {{plan: [engine, cloud], tools: [{', '.join(map(repr, _claims(number)))}]}}"
        for number in range(domains)
    )
    return _SETTINGS.format(domains=told, there=there, model=MODEL, base=bundles.MODEL)


def _claims(domain: int) -> list[str]:
    return [*names(domain, TOOLS)[:-1], f"d{domain}_tool_{TOOLS - 1}*"]


def names(domain: int, count: int) -> list[str]:
    """The tools that requests of a domain offer."""
    return [f"d{domain}_tool_{number}" for number in range(count)]


def by_domain(domains: int) -> list[bytes]:
    """A request of each domain."""
    return [request(names(domain, TOOLS)) for domain in range(domains)]


def of_tools(count: int) -> bytes:
    """A request with so many tools of the first domain: its last glob claims all that is more."""
    more = [f"d0_tool_{TOOLS - 1}_{number}" for number in range(max(0, count - TOOLS))]
    return request([*names(0, min(count, TOOLS)), *more])


def of_size(kilobytes: int) -> bytes:
    """A request with one tool, and text that makes it some so many KB."""
    bare = len(request(names(0, 1)))
    text, chance = [], random.Random(kilobytes)
    while bare < 1000 * kilobytes:
        word = chance.choice(WORDS)
        text.append(word)
        bare += len(word) + 1
    return request(names(0, 1), " ".join(text))


def request(tools: Sequence[str], text: str = "", *, stream: bool = False) -> bytes:
    """The body of a request that offers these tools."""
    asked = f"What will the weather be in Oslo over the next three days? {text}"
    body: dict[str, object] = {
        "model": MODEL,
        "messages": [
            {"role": "system", "content": "You answer with a tool call wherever one fits."},
            {"role": "user", "content": asked},
        ],
        "tools": [_tool(name) for name in tools],
        "temperature": 0,
    }
    return msgspec.json.encode(body | ({"stream": True} if stream else {}))


def _tool(name: str) -> object:
    tool = bodies.tool(0, 1)
    function = tool["function"]
    assert isinstance(function, dict)
    return {**tool, "function": {**function, "name": name}}


# ---------------------------------------------------------------- adapters

CANARY = adapter.Canary(prompt=[1, 2, 3], expected=[4, 5, 6], base=[7, 8, 9])
"""What the engine says to each adapter's canary, so that it need not know them apart."""


def adapter_ids(count: int) -> list[str]:
    """An adapter for each of so many domains."""
    return [f"d{domain}-v1" for domain in range(count)]


def write_adapters(directory: Path, count: int) -> None:
    """Sound bundles and the champion file."""
    directory.mkdir()
    for id in adapter_ids(count):
        path = bundles.write(directory, id)
        (path / adapter.CANARY).write_bytes(msgspec.json.encode(CANARY))
    serving = {id.partition("-")[0]: id for id in adapter_ids(count)}
    (directory / "champions.json").write_bytes(msgspec.json.encode(serving))
