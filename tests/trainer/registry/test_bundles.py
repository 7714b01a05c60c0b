"""Bundles on disk: written in one step, under an id that is never used twice."""

from __future__ import annotations

import os

import msgspec
import pytest

from proxy.protocol import adapter
from proxy.protocol.adapter import Canary, Lineage, Manifest
from proxy.protocol.openai import Message
from proxy.protocol.parity import Sample
from trainer.errors import TrainingError
from trainer.registry import bundles

CANARY = Canary([1, 2], [3], [4])
SAMPLE = Sample("structured", [Message(role="user", content="Rain?")], [], [1, 2])
CONFIG = b'{"peft_type": "LORA", "r": 16, "target_modules": ["q_proj"], "bias": "none"}'
MANIFEST = Manifest(
    id="api-v1",
    domain="api",
    format="structured",
    base_model="smollm2-135m-instruct",
    base_sha256="b",
    tokenizer_sha256="t",
    template_sha256="",
    weights_sha256="",
    dataset_fingerprint="sha256:d",
)


@pytest.fixture
def weights(tmp_path):
    """PEFT's two files, and one of its own that no bundle holds."""
    path = tmp_path / "weights"
    path.mkdir()
    (path / "adapter_model.safetensors").write_bytes(b"\x00weights")
    (path / "adapter_config.json").write_bytes(CONFIG)
    (path / "training_args.bin").write_bytes(b"secret")
    return path


@pytest.fixture
def adapters(tmp_path):
    path = tmp_path / "adapters"
    path.mkdir()
    return path


def written(weights, adapters, **changes):
    manifest = msgspec.structs.replace(MANIFEST, **changes)
    templates = {"structured": "{{ ü }}"}
    return bundles.write(manifest, weights, templates, CANARY, [SAMPLE], "# A card", adapters)


# ---------------------------------------------------------------- writing


def test_a_written_bundle_is_read_by_the_proxy(weights, adapters):
    bundle = written(weights, adapters)

    read = adapter.read(bundle)
    assert (bundle, read.id) == (adapters / "api-v1", "api-v1")
    assert (read.template, read.canary, read.parity) == ("{{ ü }}", CANARY, (SAMPLE,))


def test_a_bundle_holds_what_it_should_and_nothing_else(weights, adapters):
    bundle = written(weights, adapters)

    assert sorted(path.name for path in bundle.iterdir()) == [
        "README.md",
        "adapter_config.json",
        "adapter_model.safetensors",
        "canary.json",
        "manifest.json",
        "parity.json",
        "template.jinja",
    ]


def test_what_it_learnt_from_is_told_where_it_is_known(weights, adapters):
    templates, lineage = {"structured": ""}, Lineage(exchanges=["chatcmpl-1"])

    bundle = bundles.write(MANIFEST, weights, templates, CANARY, [], "", adapters, lineage)

    assert (bundle / "lineage.json").read_bytes() == b'{"exchanges":["chatcmpl-1"]}'
    assert "lineage.json" in adapter.read(bundle).manifest.files


def test_nothing_is_left_beside_a_written_bundle(weights, adapters):
    bundle = written(weights, adapters)

    assert list(adapters.iterdir()) == [bundle]


def test_a_bundle_appears_whole_or_not_at_all(weights, adapters, monkeypatch):
    monkeypatch.setattr(os, "replace", _no_power)

    with pytest.raises(OSError, match="power"):
        written(weights, adapters)

    assert not (adapters / "api-v1").exists()


def _no_power(source, target):
    raise OSError("no power")


def test_a_bundle_that_could_not_be_written_can_be_written_again(weights, adapters):
    config = (weights / "adapter_config.json").rename(weights / "away")
    with pytest.raises(OSError):
        written(weights, adapters)
    config.rename(weights / "adapter_config.json")

    assert adapter.read(written(weights, adapters)).id == "api-v1"


def test_a_bundle_is_never_written_over(weights, adapters):
    first = written(weights, adapters, seed=1)

    with pytest.raises(OSError):
        written(weights, adapters, seed=2)

    assert adapter.read(first).manifest.seed == 1


# ---------------------------------------------------------------- ids


@pytest.mark.parametrize(
    ("there", "next"),
    [
        ([], "api-v1"),
        (["api-v1"], "api-v2"),
        (["api-v9", "api-v10"], "api-v11"),
        (["api-v3"], "api-v4"),
        (["api-v2x", "api-v", "bookings-v7", "my-api-v5", "champions.json"], "api-v1"),
    ],
)
def test_an_id_is_one_higher_than_the_highest_there_is(there, next):
    assert bundles.next_id("api", there) == next


def test_a_domain_is_taken_to_the_letter():
    assert bundles.next_id("api.", ["apix-v4"]) == "api.-v1"


# ---------------------------------------------------------------- describing


def test_figures_and_card_are_put_into_a_bundle_that_stays_readable(weights, adapters):
    bundle = written(weights, adapters)

    bundles.describe(bundle, {"seen/call exact": 0.47}, "# With figures")

    assert adapter.read(bundle).manifest.metrics == {"seen/call exact": 0.47}
    assert (bundle / "README.md").read_text() == "# With figures"


def test_describing_changes_nothing_else(weights, adapters):
    bundle = written(weights, adapters)
    before = adapter.read(bundle)

    bundles.describe(bundle, {"n": 1.0}, "# With figures")

    after = adapter.read(bundle).manifest
    card = {"README.md": after.files["README.md"]}
    told = msgspec.structs.replace(
        before.manifest, metrics=after.metrics, files=before.manifest.files | card
    )
    assert after == told


def test_the_libraries_of_a_run_are_told():
    found = bundles.versions()

    assert found["tokenizers"]
    assert set(found) <= set(bundles.RECORDED)


def test_a_bundle_of_several_formats_holds_the_template_of_each(weights, adapters):
    templates = {"structured": "{{ s }}", "cep": "{{ c }}"}

    bundle = bundles.write(MANIFEST, weights, templates, CANARY, [], "# A card", adapters)

    read = adapter.read(bundle)
    assert read.template == "{{ s }}"
    assert (bundle / "template-cep.jinja").read_text() == "{{ c }}"
    assert list(read.manifest.formats) == ["cep"]


def test_a_further_template_that_was_changed_is_found_out(weights, adapters):
    templates = {"structured": "{{ s }}", "cep": "{{ c }}"}
    bundle = bundles.write(MANIFEST, weights, templates, CANARY, [], "# A card", adapters)

    (bundle / "template-cep.jinja").write_text("{{ d }}")

    with pytest.raises(adapter.AdapterError, match=r"template-cep\.jinja"):
        adapter.read(bundle)


def test_an_adapter_that_no_engine_loads_is_not_written(weights, adapters):
    (weights / "adapter_config.json").write_bytes(CONFIG.replace(b'"r"', b'"use_dora": true, "r"'))

    with pytest.raises(TrainingError, match="no engine loads DoRA"):
        written(weights, adapters)

    assert list(adapters.iterdir()) == []
