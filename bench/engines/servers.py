"""Headrace, llama.cpp and vLLM as servers on this machine, each a process group of its own."""

from __future__ import annotations

import os
import shutil
import signal
import subprocess
import sys
import time
import urllib.request
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import NamedTuple

import msgspec
from gguf import GGUFReader

from bench.gateways.processes import DoesNotAnswer, free_port
from proxy.protocol import adapter
from proxy.protocol.base_model import BaseModel
from trainer.engines import base_weights

ROOT = Path(__file__).parents[2]
MODEL = "smollm2-135m-instruct"
ADAPTERS = ("api-v1", "bookings-v1", "third-v1")
"""The shipped ones, and the second of them once more under another name."""
_CONTEXT = 1024
"""Tokens that vLLM and llama.cpp give a request; those they are asked have 400."""
_PATIENCE_S = 300.0
"""Until a server must be up."""


class Server(NamedTuple):
    """Where it answers, under which name of the model, and who it is."""

    base_url: str
    model: str
    group: int
    """Process group: all that it uses of the processor is theirs."""


@contextmanager
def headrace(scratch: Path, adapters: Path, threads: int | None) -> Iterator[Server]:
    """`headrace serve` with the base and these adapters, one model in memory.

    `threads`: of the model; None: as many as Headrace chooses.
    """
    changes = {
        "adapters: adapters ": f"adapters: {adapters} ",
        "~/.local/state/headrace/record": str(scratch / "record"),
    }
    if threads is not None:
        changes["preload: true "] = f"threads: {threads}\n    preload: true "
    settings = (ROOT / "routes.yaml").read_text()
    for before, after in changes.items():
        settings = settings.replace(before, after)
    (scratch / "routes.yaml").write_text(settings)
    port = free_port()
    command = [sys.executable, "-m", "proxy", "serve", "--config", str(scratch / "routes.yaml")]
    command += ["--port", str(port)]
    url = f"http://127.0.0.1:{port}/ready"
    with _running(command, {}, scratch / "headrace.log", url) as group:
        yield Server(f"http://127.0.0.1:{port}/v1", "headrace", group)


def three_adapters(directory: Path) -> Path:
    """The directory, made, with all that `ADAPTERS` names."""
    shutil.copytree(ROOT / "adapters", directory)
    third = directory / ADAPTERS[2]
    shutil.copytree(directory / ADAPTERS[1], third)
    manifest = msgspec.json.decode((third / adapter.MANIFEST).read_bytes())
    named = manifest | {"id": ADAPTERS[2], "domain": "third"}
    (third / adapter.MANIFEST).write_bytes(msgspec.json.encode(named))
    return directory


def no_adapters(directory: Path) -> Path:
    """The directory, made and empty: the base answers, and has the processor to itself."""
    directory.mkdir()
    return directory


@contextmanager
def vllm(python: Path, scratch: Path) -> Iterator[Server]:
    """vLLM's server, with bf16 weights and all cores."""
    folder = scratch / "model"
    _export(folder)
    port = free_port()
    command = [
        *(str(python), "-m", "vllm.entrypoints.openai.api_server", "--model", str(folder)),
        *("--served-model-name", "base", "--host", "127.0.0.1", "--port", str(port)),
        *("--dtype", "bfloat16", "--max-model-len", str(_CONTEXT), "--max-num-seqs", "16"),
        *("--chat-template", str(folder / "template.jinja"), "--enforce-eager"),
    ]
    settings = {
        "VLLM_CPU_KVCACHE_SPACE": "1",
        "VLLM_CPU_OMP_THREADS_BIND": "nobind",
        "VLLM_NO_USAGE_STATS": "1",
        "HF_HUB_OFFLINE": "1",
        "OMP_NUM_THREADS": str(os.cpu_count()),
    }
    url = f"http://127.0.0.1:{port}/health"
    with _running(command, settings, scratch / "vllm.log", url) as group:
        yield Server(f"http://127.0.0.1:{port}/v1", "base", group)


def _export(folder: Path) -> None:
    """The base as a directory that vLLM reads: weights in bf16, tokenizer, template."""
    base = BaseModel.find(MODEL)
    base_weights.load(base, "bf16").save_pretrained(folder)
    (folder / "tokenizer.json").write_text(base.tokenizer.to_str())
    about = {"tokenizer_class": "PreTrainedTokenizerFast", "eos_token": "<|im_end|>"}
    (folder / "tokenizer_config.json").write_bytes(msgspec.json.encode(about))
    template = GGUFReader(base.gguf).get_field("tokenizer.chat_template").contents()
    (folder / "template.jinja").write_text(template)


@contextmanager
def llamacpp(python: Path, scratch: Path) -> Iterator[Server]:
    """llama.cpp's server, with the very file that the embedded engine's model is made of."""
    port = free_port()
    model = [str(BaseModel.find(MODEL).gguf), str(port), "16", str(os.cpu_count())]
    command = [str(python), str(ROOT / "bench" / "llamacpp.py"), *model]
    url = f"http://127.0.0.1:{port}/health"
    with _running(command, {}, scratch / "llamacpp.log", url) as group:
        yield Server(f"http://127.0.0.1:{port}/v1", "base", group)


@contextmanager
def _running(
    command: Sequence[str], settings: Mapping[str, str], log: Path, url: str
) -> Iterator[int]:
    """A process group that answers at `url`, for as long as the context lasts; its id."""
    inherited = {key: value for key, value in os.environ.items() if key != "PYTHONPATH"}
    with log.open("wb") as output:
        process = subprocess.Popen(
            command,
            stdin=subprocess.PIPE,
            stdout=output,
            stderr=output,
            cwd=ROOT,
            env={**inherited, **settings},
            start_new_session=True,
        )
    try:
        _wait(process, url, log)
        yield process.pid
    finally:
        with suppress(ProcessLookupError):
            os.killpg(process.pid, signal.SIGTERM)
        process.wait()


def _wait(process: subprocess.Popen[bytes], url: str, log: Path) -> None:
    end = time.monotonic() + _PATIENCE_S
    while time.monotonic() < end and process.poll() is None:
        with suppress(OSError):
            urllib.request.urlopen(url).close()
            return
        time.sleep(0.5)
    raise DoesNotAnswer(f"nothing answers at {url}: {log.read_text(errors='replace')[-3000:]}")
