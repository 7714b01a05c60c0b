"""`evaluate`, as it is typed, of an endpoint on a socket."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from pathlib import Path

import msgspec
import pytest

pytest.importorskip("openai", reason="needs the dev extra")
pytest.importorskip("scipy", reason="needs the train extra")

from proxy.protocol import adapter
from tests.trainer.endpoint import Server, answering
from tests.trainer.examples import row, weather
from trainer import dataset
from trainer import evaluate as evaluation
from trainer.__main__ import main
from trainer.dataset import Dataset

CITIES = ("Oslo", "Bergen", "Moss", "Voss")


@pytest.fixture
async def server() -> AsyncIterator[Server]:
    """Right about all cities but the last."""
    async with answering() as made:
        made.calls = {f"Rain in {city}?": [weather(city)] for city in CITIES[:3]}
        made.calls["Rain in Voss?"] = [weather("Paris")]
        made.by = {"x-headrace-adapter": "api-v1", "x-headrace-confidence": "0.9"}
        yield made


@pytest.fixture
def held_out(tmp_path: Path) -> Path:
    """A dataset with a question about each city on its side of what was seen."""
    rows = [row(weather(city), question=f"Rain in {city}?") for city in CITIES]
    written = Dataset(train=rows[:1], validation=[], seen=rows, unseen=[], dropped={})
    dataset.write(written, tmp_path / "dataset")
    return tmp_path / "dataset"


async def evaluated(server: Server, *more: str) -> int:
    # The command has a loop of its own.
    return await asyncio.to_thread(main, ["evaluate", "--base-url", server.base_url, *more])


async def test_figures_are_shown_and_the_reports_written(capsys, server, held_out, tmp_path):
    who = ("--subject", "api-v1", "--subject", "routed")
    out = ("--side", "seen", "--out", str(tmp_path / "out"))

    code = await evaluated(server, "--dataset", str(held_out), *who, *out)

    printed = capsys.readouterr().out
    report = evaluation.read(tmp_path / "out" / "api-v1-seen.json")
    assert code == 0
    assert (report.figures["call exact"].hits, report.figures["call exact"].n) == (3, 4)
    assert report.dataset == dataset.read(held_out).fingerprint
    assert "75 %" in printed or "75%" in printed
    assert "routed, seen: answered by api-v1 100" in printed
    assert "seen: routed less api-v1: +0%, right alone 0 and 0 of 4" in printed
    assert server.subjects == {"api-v1", None}


async def test_plain_questions_are_asked_too(capsys, server, tmp_path):
    probes = tmp_path / "probes.yaml"
    probes.write_text("- {id: refusal, question: 'Say no.', any_of: ['no']}\n")

    code = await evaluated(server, "--probes", str(probes), "--subject", "base")

    assert code == 0
    assert capsys.readouterr().out.startswith("base: right 100")


async def test_a_bundle_gets_its_figures_and_how_sure_it_must_be(
    capsys, server, held_out, adapters
):
    bundle = adapters / "api-v1"
    manifest = adapter.read(bundle).manifest
    fingerprint = dataset.read(held_out).fingerprint
    adapter.seal(bundle, msgspec.structs.replace(manifest, dataset_fingerprint=fingerprint))
    into = ("--describe", str(bundle), "--calibrate", str(bundle))

    code = await evaluated(
        server, "--dataset", str(held_out), "--side", "seen", "--subject", "api-v1", *into
    )

    made = adapter.read(bundle)
    assert code == 0
    assert made.manifest.metrics["seen/call exact"] == 0.75
    assert [(step.served, step.wrong) for step in made.calibration.steps] == [(4, 1)]
    assert "75" in (bundle / adapter.CARD).read_text()


async def test_figures_of_another_dataset_are_none_of_a_bundle_s(
    capsys, server, held_out, adapters
):
    bundle = adapters / "api-v1"
    before = (bundle / "manifest.json").read_bytes()

    code = await evaluated(
        server, "--dataset", str(held_out), "--side", "seen", "--describe", str(bundle)
    )

    assert code == 1
    assert "was trained on another dataset" in capsys.readouterr().err
    assert (bundle / "manifest.json").read_bytes() == before
