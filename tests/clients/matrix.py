"""Runs every client against Headrace: one program each, and a table of what they saw.

    python -m tests.clients.matrix [--only NAME …] [--write docs/compatibility.md]

Programs print JSON lines, see python/program.py and node/program.js; Python and Node are alike.
"""

from __future__ import annotations

import argparse
import asyncio
import json
import os
import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from proxy import logs
from tests.clients import report
from tests.clients.places import Places, places
from tests.clients.report import Client, Outcome

_HERE = Path(__file__).parent
_ROOT = _HERE.parent.parent
_PATIENCE_S = 180
"""Seconds that a whole program may take; imports alone take 10 on a busy machine."""

PYTHON = ".venv-clients/bin/python"
PYTHON_OPENAI2 = ".venv-clients-openai2/bin/python"
"""Libraries that do not know openai 3 yet live in an environment with openai 2."""

CLIENTS = (
    Client("openai-sync", "openai-python, sync", PYTHON, "openai_sync.py"),
    Client("openai-async", "openai-python, async", PYTHON, "openai_async.py"),
    Client("openai-helpers", "openai-python, helpers", PYTHON, "openai_helpers.py"),
    Client("openai-responses", "openai-python, Responses API", PYTHON, "openai_responses.py"),
    Client("openai-azure", "openai-python, AzureOpenAI", PYTHON, "openai_azure.py"),
    Client("openai-azure-v1", "openai-python, /openai/v1/", PYTHON, "openai_azure_v1.py"),
    Client("openai2-sync", "openai-python 2, sync", PYTHON_OPENAI2, "openai_sync.py"),
    Client("openai2-helpers", "openai-python 2, helpers", PYTHON_OPENAI2, "openai_helpers.py"),
    Client("langchain", "LangChain, ChatOpenAI", PYTHON, "langchain_openai_chat.py"),
    Client("langchain-azure", "LangChain, AzureChatOpenAI", PYTHON, "langchain_azure.py"),
    Client("pydantic-ai", "pydantic-ai", PYTHON, "pydantic_ai_agent.py"),
    Client("llamaindex", "LlamaIndex, OpenAILike", PYTHON_OPENAI2, "llamaindex.py"),
    Client("instructor", "Instructor", PYTHON_OPENAI2, "instructor_client.py"),
    Client("litellm", "litellm SDK", PYTHON_OPENAI2, "litellm_sdk.py"),
    Client("node-openai", "openai-node", "node", "openai.js"),
    Client("node-helpers", "openai-node, helpers", "node", "openai_helpers.js"),
    Client("node-responses", "openai-node, Responses API", "node", "openai_responses.js"),
    Client("node-azure", "openai-node, AzureOpenAI", "node", "openai_azure.js"),
    Client("node-langchain", "LangChain JS, ChatOpenAI", "node", "langchain.js"),
    Client("node-ai", "Vercel AI SDK", "node", "ai_sdk.js"),
    Client("node-ai-azure", "Vercel AI SDK, Azure", "node", "ai_sdk_azure.js"),
)


async def run(clients: Sequence[Client]) -> list[Outcome]:
    """All outcomes, client after client, with progress on stderr."""
    outcomes = []
    async with places() as everything:
        for client in clients:
            outcome = await outcome_of(client, everything)
            print(report.progress(outcome), file=sys.stderr, flush=True)
            outcomes.append(outcome)
    return outcomes


async def outcome_of(client: Client, everything: Places) -> Outcome:
    """What one client's program says."""
    everything.busy.reset()
    process = await asyncio.create_subprocess_exec(
        *client.command(_ROOT, _HERE),
        stdout=asyncio.subprocess.PIPE,
        stderr=asyncio.subprocess.PIPE,
        env=os.environ | {"HEADRACE_CLIENTS": json.dumps(everything.plan | {"client": client.id})},
    )
    try:
        async with asyncio.timeout(_PATIENCE_S):
            told, complained = await process.communicate()
    except TimeoutError:
        process.kill()
        told, complained = await process.communicate()
        complained += f"\nkilled after {_PATIENCE_S} s".encode()
    complaint = complained.decode() if process.returncode else ""
    return Outcome.of(client, [_line(line) for line in told.splitlines()], complaint)


def _line(line: bytes) -> dict[str, Any]:
    """A line of a program; what a library prints in between says nothing."""
    try:
        decoded = json.loads(line)
    except ValueError:
        return {}
    return decoded if isinstance(decoded, dict) else {}


def _node() -> str:
    told = subprocess.run(["node", "--version"], capture_output=True, text=True, check=True)
    return told.stdout.strip().removeprefix("v")


def main() -> int:
    """0 when every client did everything that it can."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--only", nargs="+", default=[], help="ids of clients; default: all")
    parser.add_argument("--write", type=Path, help="Markdown file that gets the table")
    options = parser.parse_args()
    # The errors that clients are to meet would fill the screen.
    logs.configure("critical")
    chosen = [client for client in CLIENTS if not options.only or client.id in options.only]
    outcomes = asyncio.run(run(chosen))
    print(report.terminal(outcomes))
    if options.write and all(outcome.ok for outcome in outcomes):
        options.write.write_text(report.page(outcomes, _node()))
    return 0 if all(outcome.ok for outcome in outcomes) else 1


if __name__ == "__main__":
    sys.exit(main())
