"""openai-node in front of an expert that is wrong three times in ten: it never notices.

python -m tests.clients.rescue
"""

from __future__ import annotations

import asyncio
import json
from pathlib import Path

from proxy import logs
from tests.rescue import REQUESTS, Made, check_all_are_rescued
from tests.wire import TOOLS

NODE = Path(__file__).parent / "node"
_PATIENCE_S = 120


async def ask_all(url: str, questions: int, streams: bool) -> list[Made]:
    """What openai-node makes of the answers; raises RuntimeError with what node complains of."""
    plan = {"url": url, "questions": questions, "streams": streams, "tools": json.loads(TOOLS)}
    process = await asyncio.create_subprocess_exec(
        *("node", NODE / "rescue.js", json.dumps(plan)),
        stdout=asyncio.subprocess.PIPE,
        stderr=asyncio.subprocess.PIPE,
    )
    async with asyncio.timeout(_PATIENCE_S):
        told, complained = await process.communicate()
    if process.returncode:
        raise RuntimeError(complained.decode())
    return [(name, arguments) for name, arguments in json.loads(told)]


async def main() -> None:
    for streams in (False, True):
        rescued = await check_all_are_rescued(ask_all, streams)
        how = "streamed" if streams else "whole"
        print(
            f"openai-node, {how}: {REQUESTS} of {REQUESTS} valid calls, {rescued} of them rescued"
        )


if __name__ == "__main__":
    logs.configure("critical")
    asyncio.run(main())
