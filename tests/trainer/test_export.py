"""An adapter merged into its base answers as it was trained to, or is refused."""

from __future__ import annotations

from pathlib import Path

import msgspec
import pytest

pytest.importorskip("torch", reason="needs torch; run `make train-setup`")
pytest.importorskip("peft", reason="needs the train extra")

from proxy.protocol import adapter
from proxy.protocol.adapter import Adapter, Canary
from proxy.protocol.base_model import DirectoryModel
from trainer import export
from trainer.errors import TrainingError

ROOT = Path(__file__).parents[2]


@pytest.fixture(scope="module")
def shipped() -> Adapter:
    return adapter.read(ROOT / "adapters" / "bookings-v1")


@pytest.fixture(scope="module")
def merged(shipped: Adapter, tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, export.Proof]:
    directory = tmp_path_factory.mktemp("merged")
    return directory, export.merged(shipped, directory)


def test_a_merged_model_answers_its_canary(merged):
    _, proof = merged

    assert (proof.adapter, proof.as_base) == ("bookings-v1", False)
    assert proof.agree >= 8


def test_a_merged_model_is_a_base_with_its_tokenizer_and_template(merged, shipped):
    base = DirectoryModel(merged[0])

    assert base.encode("Rain in Oslo?<|im_end|>")[-1] == 2
    assert (merged[0] / "chat_template.jinja").read_text() == shipped.template
    assert len(base.sha256) == 64


def test_what_was_proven_is_written_beside_it(merged):
    assert (
        msgspec.json.decode((merged[0] / export.PROOF).read_bytes(), type=export.Proof)
        == (merged[1])
    )


def test_an_export_that_answers_as_its_base_is_refused(shipped, tmp_path):
    # What this adapter answers, told as the base's.
    told = Canary(shipped.canary.prompt, shipped.canary.base, shipped.canary.expected)
    swapped = msgspec.structs.replace(shipped, canary=told)

    with pytest.raises(TrainingError, match="nothing of bookings-v1 is in it"):
        export.merged(swapped, tmp_path)


def test_an_adapter_of_other_weights_is_refused(shipped, tmp_path):
    manifest = msgspec.structs.replace(shipped.manifest, base_sha256="0" * 64)

    with pytest.raises(TrainingError, match="other weights"):
        export.merged(msgspec.structs.replace(shipped, manifest=manifest), tmp_path)


def test_a_converter_that_is_not_there_is_told_with_the_remedy(tmp_path):
    with pytest.raises(TrainingError, match=r"name a checkout of llama\.cpp"):
        export.gguf_merged(tmp_path, tmp_path / "out.gguf", tmp_path)
