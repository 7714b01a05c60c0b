"""Writes what this release leaves on disks: `python -m tests.upgrade.make`, before a release.

The folder `v<version>` is kept for good, and read by every release after it (test_upgrade.py).
"""

from __future__ import annotations

import base64
import shutil
from collections.abc import Sequence
from importlib import metadata
from pathlib import Path

import msgspec

from proxy.protocol import champions, tombstones
from proxy.protocol.adapter import Canary, Lineage, Manifest
from proxy.protocol.openai import Message
from proxy.protocol.parity import Sample
from proxy.protocol.sealing import Keyring
from proxy.protocol.tombstones import Tombstone
from proxy.record.compact import Retention, compact
from tests.record.examples import exchange, feedback, result, shadowed, shelf, write
from tests.trainer.examples import row, weather
from trainer import dataset
from trainer.dataset import Dataset, Fate
from trainer.registry import bundles

HERE = Path(__file__).parent
ROOT = HERE.parents[1]
KEY = base64.b64encode(bytes(32)).decode()
FUNCTION = {
    "name": "ping",
    "parameters": {"type": "object", "properties": {"host": {"type": "string"}}},
}
REQUEST = {
    "model": "gpt-4o",
    "messages": [{"role": "user", "content": "Ping a."}],
    "tools": [{"type": "function", "function": FUNCTION}],
}
CONFIG = {"peft_type": "LORA", "r": 16, "target_modules": ["q_proj"], "bias": "none"}


def main() -> None:
    """One folder, of all kinds of files."""
    out = HERE / f"v{'.'.join(metadata.version('headrace').split('.')[:2])}"
    record(out / "record")
    adapters(out / "adapters", out / "weights")
    datasets(out / "dataset")
    shutil.copyfile(ROOT / "routes.yaml", out / "routes-shipped.yaml")
    for name in ("api", "recommended"):
        shutil.copyfile(ROOT / "trainer" / "recipes" / f"{name}.yaml", out / f"recipe-{name}.yaml")


def record(directory: Path) -> None:
    """`chatcmpl-1` to `-3` in Parquet, `-4` and `-5` in a segment, `-6` sealed; `-3` is erased."""
    asked = {"request": msgspec.Raw(msgspec.json.encode(REQUEST))}
    write(
        directory,
        *(exchange(f"chatcmpl-{n}", **asked) for n in (1, 2, 3)),
        feedback("feedback-1", "chatcmpl-1"),
        shadowed("shadow-1", "chatcmpl-2"),
    )
    compact(shelf(directory), Retention())
    results = [result("call-chatcmpl-4", "ok")]
    write(
        directory,
        exchange("chatcmpl-4", **asked),
        exchange("chatcmpl-5", **asked, tool_results=results, assigned="canary:api-v2"),
        feedback("feedback-2", "chatcmpl-4"),
        shadowed("shadow-2", "chatcmpl-4"),
    )
    keyring = Keyring({"first": base64.b64decode(KEY)}, "first")
    write(directory / "sealed", exchange("chatcmpl-6", **asked), keyring=keyring)
    (directory / "tombstones").mkdir()
    gone = Tombstone(id="chatcmpl-3", tenant="t", erased_at=0.0, reasons=["caller"])
    (directory / "tombstones" / "1.jsonl").write_bytes(tombstones.encode([gone]))


def adapters(directory: Path, weights: Path) -> None:
    """`api-v1`, of two formats, the champion of `api`."""
    weights.mkdir(parents=True)
    (weights / "adapter_model.safetensors").write_bytes(b"weights")
    (weights / "adapter_config.json").write_bytes(msgspec.json.encode(CONFIG))
    manifest = Manifest(
        id="api-v1",
        domain="api",
        format="structured",
        base_model="smollm2-135m-instruct",
        base_sha256="b",
        tokenizer_sha256="t",
        template_sha256="",
        weights_sha256="",
        dataset_fingerprint="sha256:d",
        created_at="2026-11-22T00:00:00+00:00",
    )
    samples = [Sample("structured", [Message(role="user", content="Ping a.")], [], [1, 2])]
    templates = {"structured": "{{ s }}", "cep": "{{ c }}"}
    lineage = Lineage(exchanges=["chatcmpl-1"])
    canary = Canary([1], [2], [3])
    bundles.write(manifest, weights, templates, canary, samples, "# A card", directory, lineage)
    shutil.rmtree(weights)
    champions.appoint(directory, "api", "api-v1", "first")


def datasets(directory: Path) -> None:
    """One row a side, the training's of `chatcmpl-1`."""
    first = msgspec.structs.replace(row(weather()), exchange="chatcmpl-1")
    sides = {side: [row(question=f"{side}?")] for side in ("validation", "seen", "unseen")}
    dataset.write(Dataset(train=[first], dropped={"near": 1}, **sides), directory)
    fates: Sequence[Fate] = [Fate(first.id, first.source, first.exchange, "train")]
    (directory / "fates.jsonl").write_bytes(msgspec.json.Encoder().encode_lines(fates))


if __name__ == "__main__":
    main()
