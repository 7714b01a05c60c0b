"""`make demo`: the example against a fresh server, then base model and adapter side by side."""

from __future__ import annotations

import contextlib
import os
import socket
import subprocess
import sys
import tempfile
import time
import urllib.request
from collections.abc import Iterator, Mapping
from pathlib import Path

from proxy.protocol import champions

ROOT = Path(__file__).parents[1]
BIN = Path(sys.executable).parent
SHOWN = "60"
"""Held-out rows of each side that base and adapter are asked: some ten minutes on two cores."""


def main() -> None:
    with tempfile.TemporaryDirectory() as scratch, server(Path(scratch)) as base_url:
        print("── the example ──\n", flush=True)
        run(sys.executable, "examples/chat.py", base_url)
        for domain, champion in champions.read(ROOT / "adapters").serving.items():
            print(f"\n── {domain}: base model and {champion} ──", flush=True)
            compare(base_url, domain, champion, Path(scratch))
        print("\n── speed ──", flush=True)
        run(sys.executable, "bench/embedded.py", base_url)


def compare(base_url: str, domain: str, champion: str, scratch: Path) -> None:
    """Both on the same held-out questions, constrained alike, through the whole proxy."""
    trainer = str(BIN / "headrace-trainer")
    dataset = str(scratch / domain)
    run(trainer, "dataset", "--recipe", domain, "--out", dataset)
    # `base!`: made to call, where a call is right; left to itself the base never does.
    subjects = ("--subject", "base!", "--subject", champion)
    run(
        trainer,
        "evaluate",
        *("--dataset", dataset, "--base-url", base_url, "--most", SHOWN),
        *subjects,
    )


@contextlib.contextmanager
def server(scratch: Path, changes: Mapping[str, str] | None = None) -> Iterator[str]:
    """A fresh server on a free port, with a record of its own; yields its base_url.

    `changes` replace texts of routes.yaml.
    """
    settings = (ROOT / "routes.yaml").read_text()
    for before, after in (changes or {}).items():
        settings = settings.replace(before, after)
    settings = settings.replace("adapters: adapters ", f"adapters: {ROOT / 'adapters'} ")
    settings = settings.replace("~/.local/state/headrace/record", str(scratch / "record"))
    (scratch / "routes.yaml").write_text(settings)
    port = free_port()
    command = [BIN / "headrace", "serve", "--config", scratch / "routes.yaml", "--port", str(port)]
    with (scratch / "log").open("wb") as log:
        process = subprocess.Popen(list(map(str, command)), stdout=log, stderr=log, cwd=ROOT)
    try:
        wait(port, process, scratch / "log")
        yield f"http://127.0.0.1:{port}/v1"
    finally:
        process.terminate()
        process.wait(timeout=60)


def wait(port: int, process: subprocess.Popen[bytes], log: Path) -> None:
    """Until the server answers; SystemExit with its log when it does not within two minutes."""
    for _ in range(600):
        with contextlib.suppress(OSError):
            urllib.request.urlopen(f"http://127.0.0.1:{port}/ready").close()
            return
        if process.poll() is not None:
            break
        time.sleep(0.2)
    sys.exit(f"the server did not start:\n{log.read_text()}")


def free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


def run(*command: str) -> None:
    subprocess.run(command, cwd=ROOT, check=True, env=os.environ | {"COLUMNS": "150"})


if __name__ == "__main__":
    main()
