"""From corrections and thumbs in a record to an adapter's next version, through the command."""

from __future__ import annotations

import json
from pathlib import Path

import msgspec
import pytest
import yaml

pytest.importorskip("trl", reason="needs the extra prefer")
pytest.importorskip("obstore", reason="needs the record extra")

from proxy.protocol import adapter
from proxy.protocol.adapter import Adapter
from proxy.protocol.exchange import Answer, Attempt
from proxy.protocol.openai import FunctionCall, ToolCall
from tests.record.examples import NOW, exchange, feedback, write
from tests.trainer.bases import tiny
from tests.trainer.examples import WEATHER, corpus
from trainer import dataset, pipeline, recipe
from trainer.__main__ import main
from trainer.dataset import Dataset
from trainer.engines.peft import ENGINE
from trainer.prefer import PREFERENCES
from trainer.sources.base import Skips

CITIES = ("Oslo", "Rome", "Lima", "Kyiv", "Bern", "Riga", "Male", "Doha")
TOOL = {"type": "function", "function": json.loads(msgspec.json.encode(WEATHER))}


def called(city: str) -> Answer:
    call = ToolCall("call-1", FunctionCall("weather", json.dumps({"city": city})))
    return Answer(tool_calls=[call], finish_reason="tool_calls")


def record(directory: Path, cities: tuple[str, ...] = CITIES) -> Path:
    """Answers that are all wrong, each put right by a person, every second one with a thumb."""
    kept: list[object] = []
    for number, city in enumerate(cities):
        asked = {"role": "user", "content": f"Rain in {city}?"}
        body = msgspec.Raw(
            msgspec.json.encode({"model": "m", "messages": [asked], "tools": [TOOL]})
        )
        given = Attempt(
            kind="primary",
            backend="local",
            adapter="mine-v1",
            outcome="completed",
            answer=called("Atlantis"),
            started_at=NOW,
            total_s=0.1,
        )
        kept.append(
            exchange(f"e{city}", request=body, attempts=[given], conversation=f"conv-{city}")
        )
        kept.append(
            feedback(f"f{city}", f"e{city}", kind="demonstration", value=called(city), caller="ann")
        )
        kept.append(feedback(f"t{city}", f"e{city}", kind="boolean", value=number % 2 == 0))
    write(directory, *kept)
    return directory


@pytest.fixture(scope="module")
def parent(tmp_path_factory: pytest.TempPathFactory) -> Adapter:
    """A trained adapter of a tiny base; its recipe lies beside the adapters."""
    place = tmp_path_factory.mktemp("parent")
    base = tiny(place / "base")
    rows = corpus(1, 20)
    written = Dataset(train=rows[:16], validation=rows[16:], seen=[], unseen=[], dropped={})
    dataset.write(written, place / "dataset")
    settings = {
        "domain": "mine",
        "base_model": str(base.gguf),
        "format": "structured",
        "template": "structured",
        "sources": [{"kind": "exchanges", "directory": str(place / "record")}],
        "lora": {"rank": 8},
        "training": {"learning_rate": 0.02, "precision": "bf16", "max_steps": 2},
        "preferences": {"least": 4, "learning_rate": 0.01, "batch_rows": 4},
    }
    (place / "mine.yaml").write_text(yaml.safe_dump(settings))
    (place / "run").mkdir()
    read = recipe.read(place / "mine.yaml")
    path = pipeline.train(
        read, ENGINE, place / "run", place / "adapters", Skips(), place / "dataset"
    )
    record(place / "record")
    return adapter.read(path)


def prefer(parent: Adapter, out: Path, *further: str) -> int:
    place = parent.path.parent.parent
    given = ("--recipe", place / "mine.yaml", "--adapters", place / "adapters", "--out", out)
    return main(["prefer", parent.id, *map(str, given), *further])


@pytest.mark.parametrize("by", ["dpo", "kto"])
def test_the_next_version_is_the_adapter_taught_by_the_record(parent, tmp_path, by):
    before = len(list(parent.path.parent.iterdir()))

    assert prefer(parent, tmp_path, "--by", by) == 0

    made = adapter.read(parent.path.parent / f"mine-v{before + 1}")
    assert made.manifest.base_sha256 == parent.manifest.base_sha256
    assert made.manifest.weights_sha256 != parent.manifest.weights_sha256
    assert made.canary.expected != made.canary.base
    assert (
        f"On top of mine-v1, by {by.upper()} on 7 preferences"
        in (made.path / "README.md").read_text()
    )
    assert len((tmp_path / PREFERENCES).read_text().splitlines()) == len(CITIES)


def test_too_few_are_told_with_the_knob(parent, tmp_path, capsys):
    place = parent.path.parent.parent
    settings = yaml.safe_load((place / "mine.yaml").read_text())
    settings["preferences"]["least"] = 9
    (tmp_path / "more.yaml").write_text(yaml.safe_dump(settings))

    given = ("--recipe", str(tmp_path / "more.yaml"), "--adapters", str(place / "adapters"))
    assert main(["prefer", "mine-v1", *given, "--out", str(tmp_path)]) == 1

    assert "8 pairs in the recipe's records, and `preferences.least` is 9" in (
        capsys.readouterr().err
    )
