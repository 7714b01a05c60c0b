"""DPO and KTO through TRL, for real, on a tiny model: same ids, and the chosen become likelier."""

from __future__ import annotations

from pathlib import Path

import msgspec
import pytest

pytest.importorskip("torch", reason="needs torch; run `make train-setup`")
pytest.importorskip("trl", reason="needs the extra `prefer`")

import torch
from peft import PeftModel, get_peft_model

from proxy.protocol.formats.base import template
from tests.trainer.bases import tiny
from tests.trainer.examples import row, weather
from trainer.engines import base_weights
from trainer.engines.loss import cross_entropy
from trainer.engines.peft import lora_config
from trainer.engines.preferring import dpo, kto
from trainer.errors import PreflightError
from trainer.preferences import Judged, Pair
from trainer.recipe import LoraSettings, PreferenceSettings
from trainer.rows import Row
from trainer.tokens import Encoder

SETTINGS = PreferenceSettings(learning_rate=1e-2, epochs=4, batch_rows=4, micro_rows=2, sft=0.0)
CITIES = ("Oslo", "Rome", "Lima", "Kyiv")


@pytest.fixture
def encoder(tmp_path: Path) -> Encoder:
    return Encoder(tiny(tmp_path / "base"), template("structured"), "structured")


@pytest.fixture
def model(encoder: Encoder) -> PeftModel:
    torch.manual_seed(0)
    base = base_weights.load(encoder.base, "fp32")
    return get_peft_model(base, lora_config(LoraSettings(rank=8)), autocast_adapter_dtype=False)


def likelihood(model: PeftModel, encoder: Encoder, rows: list[Row]) -> float:
    with torch.inference_mode():
        return -sum(cross_entropy(model, [encoder(one)]).item() for one in rows)


def pair(city: str) -> Pair:
    asked = row(weather(city), question=f"Rain in {city}?")
    wrong = msgspec.structs.replace(asked, calls=[weather("Atlantis")])
    return Pair(asked, wrong, "correction")


def test_dpo_moves_from_the_rejected_to_the_chosen(encoder, model, tmp_path):
    found = [pair(city) for city in CITIES]
    chosen, rejected = [p.chosen for p in found], [p.rejected for p in found]
    before = likelihood(model, encoder, chosen) - likelihood(model, encoder, rejected)

    trained = dpo(model, encoder, found, SETTINGS, tmp_path, 0)

    after = likelihood(trained.model, encoder, chosen) - likelihood(
        trained.model, encoder, rejected
    )
    assert after > before + 1
    assert list(trained.model.peft_config) == ["default"]


def test_kto_moves_towards_what_was_liked(encoder, model, tmp_path):
    good, bad = [pair(city).chosen for city in CITIES], [pair(city).rejected for city in CITIES]
    # Turn about, so that every batch has both.
    found = [Judged(one, one in good) for both in zip(good, bad, strict=True) for one in both]
    before = likelihood(model, encoder, good) - likelihood(model, encoder, bad)

    trained = kto(model, encoder, found, SETTINGS, tmp_path, 0)

    after = likelihood(trained.model, encoder, good) - likelihood(trained.model, encoder, bad)
    assert after > before


def test_a_pair_of_which_trl_makes_other_ids_stops_the_run(encoder, model, tmp_path):
    # An answer that begins with line ends is merged with the one that ends the prompt.
    asked = row(text="\n\nNo.")
    merged = Pair(asked, msgspec.structs.replace(asked, text="Yes."), "correction")

    with pytest.raises(PreflightError, match="TRL makes other ids"):
        dpo(model, encoder, [merged], SETTINGS, tmp_path, 0)
