"""A real vLLM on this machine's processor, serving SmolLM2-135M with the shipped adapters.

HEADRACE_VLLM names the Python of a virtual environment that has it; `make test-engines` makes one.
"""

from __future__ import annotations

import json
import os
import socket
import subprocess
import time
import urllib.request
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path

import pytest

from proxy.protocol.base_model import BaseModel
from proxy.protocol.formats.base import END
from tests.engines.fronting import ROOT

PYTHON = os.environ.get("HEADRACE_VLLM", "")
needs_vllm = pytest.mark.skipif(
    not Path(PYTHON or "nowhere").exists(), reason="needs vLLM; run `make test-engines`"
)
PATIENCE = 900.0
"""Seconds until the server must answer; 28 s on a quiet machine, some minutes on a busy one."""


@dataclass
class Live:
    """A running server."""

    url: str
    log: Path


def convert(model: str, folder: Path) -> None:
    """A packaged base model as a Hugging Face folder: weights, configuration and tokenizer."""
    import torch

    from trainer.engines import base_weights

    base = BaseModel.find(model)
    end = base.encode(END)[0]
    weights = base_weights.load(base, torch.bfloat16)
    weights.config.eos_token_id = weights.generation_config.eos_token_id = end
    weights.config.bos_token_id = weights.generation_config.bos_token_id = None
    weights.save_pretrained(folder)
    (folder / "tokenizer.json").write_text(base.tokenizer.to_str())
    about = {"tokenizer_class": "PreTrainedTokenizerFast", "eos_token": END, "pad_token": END}
    (folder / "tokenizer_config.json").write_text(json.dumps(about))


@contextmanager
def running(scratch: Path, *adapters: str) -> Iterator[Live]:
    """A server on a free port that has loaded these adapters; gone at the end."""
    convert("smollm2-135m-instruct", scratch / "model")
    port, log = _free_port(), scratch / "log"
    command = [
        *(PYTHON, "-m", "vllm.entrypoints.openai.api_server", "--model", str(scratch / "model")),
        *("--served-model-name", "base", "--host", "127.0.0.1", "--port", str(port)),
        *("--dtype", "bfloat16", "--max-model-len", "4096", "--max-num-seqs", "8"),
        *("--enable-lora", "--max-loras", "3", "--max-lora-rank", "16", "--enforce-eager"),
        *("--enable-auto-tool-choice", "--tool-call-parser", "hermes"),
        *("--chat-template", str(ROOT / "adapters" / "bookings-v1" / "template.jinja")),
        *("--lora-modules", *(f"{id}={ROOT / 'adapters' / id}" for id in adapters)),
    ]
    settings = {
        "VLLM_ALLOW_RUNTIME_LORA_UPDATING": "True",
        "VLLM_CPU_KVCACHE_SPACE": "1",
        "VLLM_CPU_OMP_THREADS_BIND": "nobind",
        "VLLM_NO_USAGE_STATS": "1",
        "HF_HUB_OFFLINE": "1",
        "OMP_NUM_THREADS": "2",
    }
    with log.open("wb") as output:
        process = subprocess.Popen(
            command,
            cwd=scratch,
            env={key: value for key, value in os.environ.items() if key != "PYTHONPATH"} | settings,
            stdout=output,
            stderr=output,
            start_new_session=True,
        )
    live = Live(f"http://127.0.0.1:{port}", log)
    try:
        _wait(live, process)
        yield live
    finally:
        process.terminate()
        with suppress(subprocess.TimeoutExpired):
            process.wait(30)
        with suppress(ProcessLookupError):
            os.killpg(process.pid, 9)


def _free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


def _wait(live: Live, process: subprocess.Popen[bytes]) -> None:
    end = time.monotonic() + PATIENCE
    while time.monotonic() < end and process.poll() is None:
        with suppress(OSError):
            urllib.request.urlopen(f"{live.url}/health").close()
            return
        time.sleep(0.5)
    pytest.fail(live.log.read_text(errors="replace")[-5000:])
