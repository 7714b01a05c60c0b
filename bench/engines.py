"""The embedded engine beside vLLM on the processor and llama.cpp: one model, one machine, one run.

    make bench-engines          some 6 minutes on two quiet cores

SmolLM2-135M-Instruct without an adapter. All three run at once and are asked in turn, round by
round, so that other work on the machine hits each of them; who is not asked is idle. A request is
some 330 tokens of text that no other request begins with, and 32 tokens are asked for, greedily,
streamed. Headrace is asked through its whole proxy, the others directly.

Then the aim of the embedded engine: sixteen requests with tools over three adapters, which are
three models in memory, through the proxy: constrained, verified and recorded.
"""

from __future__ import annotations

import argparse
import asyncio
import os
import platform
import shutil
import socket
import statistics
import subprocess
import sys
import tempfile
import time
import urllib.request
from collections import defaultdict
from collections.abc import Iterator, Sequence
from contextlib import ExitStack, contextmanager, suppress
from pathlib import Path
from typing import NamedTuple

import msgspec
from gguf import GGUFReader
from openai import APIStatusError, AsyncOpenAI, omit

from bench.embedded import questions, wire
from proxy.backends.embedded.pool import MergedFiles
from proxy.protocol import adapter
from proxy.protocol.base_model import BaseModel, cache_directory
from trainer.engines import base_weights
from trainer.rows import Row

sys.path.insert(0, str(Path(__file__).parents[1] / "scripts"))

from demo import ROOT, server

MODEL = "smollm2-135m-instruct"
REQUESTS = {1: 3, 4: 8, 16: 16}
"""Concurrency → requests of a round."""
ANSWER = 32
"""Tokens of an answer."""
CONTEXT = 1024
PATIENCE = 300.0
"""Seconds until a server must be up."""
THIRD = "third-v1"


class Timed(NamedTuple):
    """One answer; seconds since it was asked for."""

    first: float
    whole: float
    tokens: int
    prompt: int


class Engine(NamedTuple):
    """Where it answers, and under which name of the model."""

    base_url: str
    model: str


# ------------------------------------------------------------------ asking


async def asked(
    client: AsyncOpenAI, model: str, prompt: str | Row, adapter: str | None = None
) -> Timed | None:
    """One answer, streamed; None where the proxy found no valid one."""
    row = prompt if isinstance(prompt, Row) else None
    messages = [{"role": "user", "content": prompt}] if row is None else wire(row.messages)
    tools = [{"type": "function", "function": f} for f in wire(row.functions)] if row else omit
    began, first, usage = time.monotonic(), 0.0, None
    try:
        stream = await client.chat.completions.create(
            model=model,
            messages=messages,
            tools=tools,
            temperature=0,
            max_tokens=ANSWER if row is None else 256,
            stream=True,
            stream_options={"include_usage": True},
            extra_headers={"x-headrace-adapter": adapter} if adapter else {},
        )
        async for chunk in stream:
            delta = chunk.choices[0].delta if chunk.choices else None
            if not first and delta is not None and (delta.content or delta.tool_calls):
                first = time.monotonic() - began
            usage = chunk.usage or usage
    except APIStatusError:
        return None
    whole = time.monotonic() - began
    if usage is None:
        return None
    return Timed(first or whole, whole, usage.completion_tokens, usage.prompt_tokens)


async def together(
    engine: Engine, prompts: Sequence[str | Row], clients: int, adapters: Sequence[str] = ()
) -> tuple[float, list[Timed]]:
    """(wall seconds, answers) of a closed loop of so many clients."""
    waiting = iter(enumerate(prompts))
    answers: list[Timed] = []

    async def client(openai: AsyncOpenAI) -> None:
        for number, prompt in waiting:
            named = adapters[number % len(adapters)] if adapters else None
            if (one := await asked(openai, engine.model, prompt, named)) is not None:
                answers.append(one)

    async with AsyncOpenAI(
        base_url=engine.base_url, api_key="none", max_retries=0, timeout=PATIENCE
    ) as openai:
        began = time.monotonic()
        await asyncio.gather(*(client(openai) for _ in range(clients)))
        return time.monotonic() - began, answers


def texts(count: int) -> Iterator[str]:
    """Texts of some 330 tokens, each with a beginning of its own."""
    words = (ROOT / "LICENSE").read_text().split()
    for number in range(count):
        at = 97 * number % (len(words) - 220)
        yield f"Question {number}. Go on with this text: {' '.join(words[at : at + 220])}"


# ------------------------------------------------------------------ servers


@contextmanager
def headrace(scratch: Path) -> Iterator[Engine]:
    """`headrace serve` with the shipped adapters, and one of them a second time as the third."""
    shutil.copytree(ROOT / "adapters", scratch / "adapters")
    third = scratch / "adapters" / THIRD
    shutil.copytree(scratch / "adapters" / "bookings-v1", third)
    manifest = msgspec.json.decode((third / adapter.MANIFEST).read_bytes())
    named = manifest | {"id": THIRD, "domain": "third"}
    (third / adapter.MANIFEST).write_bytes(msgspec.json.encode(named))
    changes = {
        "adapters: adapters ": f"adapters: {scratch / 'adapters'} ",
        # The base and three adapters.
        "memory_limit_mib: 3072": "memory_limit_mib: 6144",
    }
    with server(scratch, changes) as base_url:
        yield Engine(base_url, "headrace")


@contextmanager
def vllm(python: Path, scratch: Path) -> Iterator[Engine]:
    """vLLM's server, with bf16 weights and all cores."""
    folder = scratch / "model"
    base = BaseModel.find(MODEL)
    base_weights.load(base, "bf16").save_pretrained(folder)
    (folder / "tokenizer.json").write_text(base.tokenizer.to_str())
    about = {"tokenizer_class": "PreTrainedTokenizerFast", "eos_token": "<|im_end|>"}
    (folder / "tokenizer_config.json").write_bytes(msgspec.json.encode(about))
    template = GGUFReader(base.gguf).get_field("tokenizer.chat_template").contents()
    (folder / "template.jinja").write_text(template)
    port = _free_port()
    command = [
        *(str(python), "-m", "vllm.entrypoints.openai.api_server", "--model", str(folder)),
        *("--served-model-name", "base", "--host", "127.0.0.1", "--port", str(port)),
        *("--dtype", "bfloat16", "--max-model-len", str(CONTEXT), "--max-num-seqs", "16"),
        *("--chat-template", str(folder / "template.jinja"), "--enforce-eager"),
    ]
    settings = {
        "VLLM_CPU_KVCACHE_SPACE": "1",
        "VLLM_CPU_OMP_THREADS_BIND": "nobind",
        "VLLM_NO_USAGE_STATS": "1",
        "HF_HUB_OFFLINE": "1",
        "OMP_NUM_THREADS": str(os.cpu_count()),
    }
    with _running(command, settings, scratch / "vllm.log", f"http://127.0.0.1:{port}"):
        yield Engine(f"http://127.0.0.1:{port}/v1", "base")


@contextmanager
def llamacpp(python: Path, scratch: Path) -> Iterator[Engine]:
    """llama.cpp's server, with the very file that the embedded engine loads."""
    files = MergedFiles(BaseModel.find(MODEL).gguf, cache_directory() / "merged", 16)
    whole = files.find_or_make(None)
    port = _free_port()
    model = [str(whole), str(port), "16", str(os.cpu_count())]
    command = [str(python), str(ROOT / "bench" / "llamacpp.py"), *model]
    with _running(command, {}, scratch / "llamacpp.log", f"http://127.0.0.1:{port}"):
        yield Engine(f"http://127.0.0.1:{port}/v1", "base")


@contextmanager
def _running(command: list[str], settings: dict[str, str], log: Path, url: str) -> Iterator[None]:
    with log.open("wb") as output:
        process = subprocess.Popen(
            command,
            stdin=subprocess.PIPE,
            stdout=output,
            stderr=output,
            env={k: v for k, v in os.environ.items() if k != "PYTHONPATH"} | settings,
            start_new_session=True,
        )
    try:
        _wait(process, f"{url}/health", log)
        yield
    finally:
        with suppress(ProcessLookupError):
            os.killpg(process.pid, 15)
        process.wait()


def _wait(process: subprocess.Popen[bytes], url: str, log: Path) -> None:
    end = time.monotonic() + PATIENCE
    while time.monotonic() < end and process.poll() is None:
        with suppress(OSError):
            urllib.request.urlopen(url).close()
            return
        time.sleep(0.5)
    sys.exit(f"a server did not start:\n{log.read_text(errors='replace')[-3000:]}")


def _free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


# ------------------------------------------------------------------ the figures


def compared(engines: dict[str, Engine], rounds: int) -> str:
    """Rounds of all engines in turn; medians over the rounds, in Markdown."""
    prompts = texts((rounds + 1) * (sum(REQUESTS.values()) + 2) * len(engines))
    walls: dict[tuple[str, int], list[float]] = defaultdict(list)
    firsts: dict[tuple[str, int], list[float]] = defaultdict(list)
    lengths: dict[str, float] = {}
    for engine in engines.values():
        asyncio.run(together(engine, [next(prompts) for _ in range(2)], 2))
    for _ in range(rounds):
        for clients, count in REQUESTS.items():
            chosen = [next(prompts) for _ in range(count)]
            for name, engine in engines.items():
                wall, answers = asyncio.run(together(engine, chosen, clients))
                walls[name, clients].append(sum(one.tokens for one in answers) / wall)
                firsts[name, clients] += [one.first for one in answers]
                lengths[name] = statistics.fmean(one.prompt for one in answers)
    lines = [
        "| engine | prompt tokens | clients | first token, median | output tokens/s |",
        "|---|---|---|---|---|",
    ]
    for name in engines:
        for clients in REQUESTS:
            first = statistics.median(firsts[name, clients])
            speed = statistics.median(walls[name, clients])
            lines.append(
                f"| {name} | {lengths[name]:.0f} | {clients} | {first:.2f} s | {speed:.0f} |"
            )
    return "\n".join(lines)


def over_adapters(engine: Engine, rounds: int) -> str:
    """Sixteen requests over three adapters, as the engine's aim has it."""
    adapters = ("api-v1", "bookings-v1", THIRD)
    rows = [row for row in questions() if row.calls]
    asyncio.run(together(engine, rows[:6], 6, adapters))
    speeds, firsts = [], list[float]()
    for number in range(rounds):
        chosen = rows[6 + 16 * number : 22 + 16 * number]
        wall, answers = asyncio.run(together(engine, chosen, 16, adapters))
        speeds.append(sum(one.tokens for one in answers) / wall)
        firsts += [one.first for one in answers]
    return (
        f"16 requests over {len(adapters)} adapters, {rounds} rounds:"
        f" {statistics.median(speeds):.0f} output tokens/s (aim: 200);"
        f" first token p50 {statistics.median(firsts):.2f} s (aim: 0.2; a call is held until it is"
        " verified, so that this is the whole call)"
    )


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--vllm", type=Path, default=ROOT / ".venv-vllm" / "bin" / "python")
    parser.add_argument("--llamacpp", type=Path, default=ROOT / ".venv-llamacpp" / "bin" / "python")
    options = parser.parse_args()
    with tempfile.TemporaryDirectory() as directory, ExitStack() as stack:
        scratch = Path(directory)
        engines = {"Headrace, embedded": stack.enter_context(headrace(scratch))}
        for name, start, python in (
            ("llama.cpp", llamacpp, options.llamacpp),
            ("vLLM", vllm, options.vllm),
        ):
            if python.exists():
                engines[name] = stack.enter_context(start(python, scratch))
            else:
                print(f"{name} is left out: {python} is not there")
        print(f"{platform.processor() or platform.machine()}, {os.cpu_count()} cores\n")
        print(compared(engines, options.rounds), end="\n\n", flush=True)
        print(over_adapters(engines["Headrace, embedded"], options.rounds))


if __name__ == "__main__":
    main()
