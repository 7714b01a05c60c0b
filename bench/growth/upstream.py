"""A vLLM that answers at once with a call of the first tool that it is offered.

    python -m bench.growth.upstream PORT ADAPTERS

It has so many adapters, and passes the canary of each.
"""

from __future__ import annotations

import asyncio
import sys

import msgspec
import uvloop

from bench.gateways.bodies import COMPLETION, MODEL
from bench.gateways.upstream import Answers, whole
from bench.growth.traffic import CANARY, adapter_ids

_BEFORE, _AFTER = COMPLETION.split(b"weather_service_1")


class Engine(Answers):
    """One connection to it."""

    def __init__(self, adapters: int) -> None:
        super().__init__([], 0, 0)
        parents = [{"id": id, "parent": MODEL} for id in adapter_ids(adapters)]
        self._models = whole(msgspec.json.encode({"data": [{"id": MODEL}, *parents]}))

    def answer(self, head: bytes, body: bytes) -> None:
        if b" /v1/models" in head:
            self.transport.write(self._models)
        elif b" /v1/completions" in head:
            self.transport.write(_PROOF)
        elif b" /v1/chat/completions" in head:
            self.transport.write(whole(_BEFORE + _first_tool(body) + _AFTER))
        else:
            self.transport.write(whole(b"{}"))


_PROOF = whole(msgspec.json.encode({"choices": [{"token_ids": CANARY.expected}]}))


def _first_tool(body: bytes) -> bytes:
    """Searched for, not parsed: who asks is a gateway of ours."""
    start = body.find(b'"name":"', max(0, body.find(b'"tools":'))) + 8
    return body[start : body.find(b'"', start)]


async def _serve(port: int, adapters: int) -> None:
    loop = asyncio.get_running_loop()
    server = await loop.create_server(lambda: Engine(adapters), "127.0.0.1", port, backlog=1024)
    await server.serve_forever()


if __name__ == "__main__":
    uvloop.run(_serve(int(sys.argv[1]), int(sys.argv[2])))
