"""Both exports in llama.cpp itself: made by its converters, loaded by its server, asked the canary.

`make test-export` makes the environment that HEADRACE_LLAMACPP names: its Python has the package
xllamacpp, and `src` in it holds llama.cpp's converters.
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
from pathlib import Path

import pytest

pytest.importorskip("peft", reason="needs the train extra")

from proxy.protocol import adapter
from proxy.protocol.adapter import Adapter
from proxy.protocol.base_model import BaseModel
from trainer.__main__ import main

ROOT = Path(__file__).parents[2]
PLACE = Path(os.environ.get("HEADRACE_LLAMACPP", "nowhere"))
pytestmark = pytest.mark.skipif(
    not PLACE.is_dir(), reason="needs llama.cpp; run `make test-export`"
)
PATIENCE = 300.0
"""Seconds until the server must answer; one on a quiet machine."""


@pytest.fixture(scope="module")
def shipped() -> Adapter:
    return adapter.read(ROOT / "adapters" / "bookings-v1")


@pytest.fixture(scope="module")
def exported(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """What `headrace-trainer convert` wrote."""
    out = tmp_path_factory.mktemp("exported")
    (converter,) = (PLACE / "src").glob("*/vendor/llama.cpp")
    places = ("--adapters", ROOT / "adapters", "--out", out, "--converter", converter)

    assert main(["convert", "bookings-v1", *map(str, places)]) == 0
    return out


@contextmanager
def served(*files: Path) -> Iterator[str]:
    """A server with this model, and this adapter on it; yields its address."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = str(probe.getsockname()[1])
    model, *further = map(str, files)
    command = [str(PLACE / "bin" / "python"), str(ROOT / "bench" / "llamacpp.py")]
    process = subprocess.Popen(
        [*command, model, port, "1", "1", *further],
        stdin=subprocess.PIPE,
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
    )
    try:
        yield _answering(f"http://127.0.0.1:{port}", process)
    finally:
        process.kill()
        process.wait()


def _answering(url: str, process: subprocess.Popen[bytes]) -> str:
    end = time.monotonic() + PATIENCE
    while time.monotonic() < end and process.poll() is None:
        with suppress(OSError):
            urllib.request.urlopen(f"{url}/health").close()
            return url
        time.sleep(0.2)
    pytest.fail("llama.cpp's server did not start")


def greedy(url: str, prompt: list[int], most: int) -> list[int]:
    asked = {"prompt": prompt, "n_predict": most, "temperature": 0, "return_tokens": True}
    request = urllib.request.Request(
        f"{url}/completion", json.dumps(asked).encode(), {"content-type": "application/json"}
    )
    with urllib.request.urlopen(request) as response:
        tokens: list[int] = json.load(response)["tokens"]
    return tokens


def test_the_merged_file_answers_as_trained(exported, shipped):
    canary = shipped.canary
    with served(exported / "bookings-v1.gguf") as url:
        told = greedy(url, canary.prompt, 8)

    assert told == canary.expected[:8] != canary.base[:8]


def test_the_adapters_file_makes_the_base_answer_as_trained(exported, shipped):
    canary = shipped.canary
    base = BaseModel.find(shipped.manifest.base_model).gguf
    with served(base) as url:
        without = greedy(url, canary.prompt, 8)
    with served(base, exported / "bookings-v1-lora.gguf") as url:
        told = greedy(url, canary.prompt, 8)

    assert told == canary.expected[:8] != without
