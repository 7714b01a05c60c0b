"""A proxy for a browser, in a process of its own: `python -m tests.dashboard.served DIRECTORY`.

It prints its base URL when it has answered a few requests, and ends with its standard input.
"""

from __future__ import annotations

import asyncio
import sys
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path

import msgspec

from proxy import logs
from proxy.config import load
from proxy.dashboard import live
from tests.dashboard.visiting import ADMIN, HOSTILE, KEYS
from tests.scripted import KEPT, ScriptedCloud, answer, completion, reachable
from tests.serving import serving
from tests.wire import send

ROOT = Path(__file__).parents[2]
TOOL = {
    "type": "function",
    "function": {
        "name": "find",
        "parameters": {
            "type": "object",
            "properties": {"city": {"type": "string"}},
            "required": ["city"],
        },
    },
}
ROUTES = """
version: 1
models: [gpt-4o]
backends:
  azure: {{kind: openai, base_url: '{cloud}'}}
  second: {{kind: openai, base_url: '{cloud}'}}
  local:
    {{kind: embedded, base_model: smollm2-135m-instruct, adapters: '{adapters}', preload: false}}
domains:
  geo: {{plan: [azure], tools: [find], shadow: {{to: second, share: 1}}}}
  api: {{plan: [local, azure]}}
defaults: {{tools: geo, chat: api}}
record: {{directory: record, sync_s: 0.05}}
dashboard: {{runs: runs, read_timeout_s: 300, cache_s: 2}}
{keys}
"""


@asynccontextmanager
async def busy(directory: Path) -> AsyncIterator[str]:
    """A proxy that has answered a few requests in a hostile way, each with a shadow."""
    call = {"name": "find", "arguments": msgspec.json.encode({"city": HOSTILE}).decode()}
    calls = [{"id": "call_1", "type": "function", "function": call}]
    said = completion({"role": "assistant", "content": None, "tool_calls": calls}, "tool_calls")
    cloud = ScriptedCloud()
    for number in range(8):
        cloud.plays(answer(said | {"id": f"chatcmpl-{number}"}, KEPT))
    async with reachable(cloud):
        text = ROUTES.format(cloud=cloud.base_url, adapters=ROOT / "adapters", keys=KEYS)
        (directory / "routes.yaml").write_text(text)
        async with serving(load(directory / "routes.yaml")) as url:
            for number in range(4):
                await _ask(url, f"Find {number} {HOSTILE}", [TOOL])
            await _shadowed(url, 4)
            yield url


async def _ask(url: str, question: str, tools: list[object]) -> None:
    body = {"model": "gpt-4o", "messages": [{"role": "user", "content": question}], "tools": tools}
    headers = {"authorization": f"Bearer {ADMIN}"}
    answered = await send("POST", f"{url}/chat/completions", msgspec.json.encode(body), headers)
    assert answered.status == 200


async def _shadowed(url: str, count: int) -> None:
    async with asyncio.timeout(600):
        while True:
            headers = {"authorization": f"Bearer {ADMIN}"}
            ready = await send("GET", url.replace("/v1", "/ready"), headers=headers)
            if sum(ready.json["shadows"]["geo"]["outcomes"].values()) >= count:
                return
            await asyncio.sleep(0.2)


async def _serve(directory: Path) -> None:
    # Onto standard error: nobody reads what follows the address.
    logs.configure("error")
    live.LOOK_S = 0.5
    async with busy(directory) as url:
        print(url, flush=True)
        await asyncio.to_thread(sys.stdin.read)


if __name__ == "__main__":
    asyncio.run(_serve(Path(sys.argv[1])))
