"""A student learns what its teacher thought, not only what it said."""

from __future__ import annotations

from pathlib import Path

import pytest

pytest.importorskip("torch", reason="needs torch; run `make train-setup`")
pytest.importorskip("peft", reason="needs the train extra")

import torch
from peft import PeftModel, get_peft_model
from torch.nn import functional

from proxy.protocol.base_model import BaseModel
from tests.trainer.bases import llama, tiny
from trainer.distil import Distillation, distillation
from trainer.engines import base_weights
from trainer.engines.loss import cross_entropy, logits
from trainer.engines.peft import lora_config
from trainer.errors import TrainingError
from trainer.recipe import DistilSettings, LoraSettings
from trainer.tokens import Example

MICRO = [Example([5, 6, 7, 8, 9, 2], 3), Example([5, 6, 7, 10, 2], 3)]


@pytest.fixture
def base(tmp_path: Path) -> BaseModel:
    return tiny(tmp_path / "base")


def adapted(base: BaseModel, seed: int) -> PeftModel:
    torch.manual_seed(seed)
    config = lora_config(LoraSettings(rank=8))
    config.init_lora_weights = False
    model = base_weights.load(base, "fp32")
    return get_peft_model(model, config, autocast_adapter_dtype=False)


def apart(student: PeftModel, teacher: PeftModel) -> float:
    with torch.inference_mode():
        said, taught = (
            logits(student, MICRO).log_softmax(-1),
            logits(teacher, MICRO).log_softmax(-1),
        )
    return functional.kl_div(said, taught, reduction="batchmean", log_target=True).item()


def test_a_student_comes_nearer_to_its_teacher(base):
    student, teacher = adapted(base, 1), adapted(base, 2)
    loss = Distillation(teacher, DistilSettings(teacher="t", weight=1.0))
    optimizer = torch.optim.AdamW([p for p in student.parameters() if p.requires_grad], lr=1e-2)
    before = apart(student, teacher)

    for _ in range(30):
        optimizer.zero_grad()
        loss(student, MICRO).backward()
        optimizer.step()

    assert apart(student, teacher) < before / 4


def test_the_teacher_learns_nothing(base):
    student, teacher = adapted(base, 1), adapted(base, 2)

    Distillation(teacher, DistilSettings(teacher="t"))(student, MICRO).backward()

    assert all(p.grad is None for p in teacher.parameters())
    assert any(p.grad is not None for p in student.parameters())


def test_without_weight_it_is_the_labels_cross_entropy(base):
    student, teacher = adapted(base, 1), adapted(base, 2)

    loss = Distillation(teacher, DistilSettings(teacher="t", weight=0.0))(student, MICRO)

    assert loss.item() == pytest.approx(cross_entropy(student, MICRO).item())


def test_its_own_teacher_has_nothing_to_teach(base):
    student = adapted(base, 1)

    loss = Distillation(adapted(base, 1), DistilSettings(teacher="t", weight=1.0))(student, MICRO)

    assert loss.item() == pytest.approx(0, abs=1e-4)


def test_another_vocabulary_is_refused(base, tmp_path):
    teacher = llama(tmp_path / "llama")

    with pytest.raises(TrainingError, match="other vocabularies"):
        distillation(DistilSettings(teacher=str(teacher.directory)), base)


def test_a_base_without_an_adapter_can_teach(base):
    loss = distillation(DistilSettings(teacher=str(base.directory), precision="fp32"), base)

    assert loss(adapted(base, 1), MICRO).item() > 0
