"""Distillation by logits: a student learns what its teacher thought of every next word.

Labels of a teacher that was asked over its API are rows like any other (`headrace-trainer label`).
Here the teacher is on this machine and shares the student's vocabulary, such as Llama 3.1 8B and
Llama 3.2 1B; it may wear an adapter that passed its gate. Source: Hinton et al., "Distilling the
Knowledge in a Neural Network", 2015, on the completion's tokens only.
"""

from __future__ import annotations

from pathlib import Path

import torch
from peft import PeftModel
from torch.nn import functional
from transformers import PreTrainedModel

from proxy.protocol import adapter
from proxy.protocol.base_model import BaseModel
from trainer.batches import MicroBatch
from trainer.engines import base_weights
from trainer.engines.loss import labels, logits
from trainer.errors import TrainingError
from trainer.recipe import DistilSettings


class Distillation:
    """A loss for the loop: labels and teacher, weighted."""

    def __init__(self, teacher: PeftModel | PreTrainedModel, settings: DistilSettings) -> None:
        self._teacher = teacher.eval()
        self._weight = settings.weight
        self._temperature = settings.temperature

    def __call__(self, student: PeftModel, micro: MicroBatch) -> torch.Tensor:
        """Summed over the supervised tokens, as cross-entropy is."""
        said = logits(student, micro)
        with torch.no_grad():
            taught = logits(self._teacher, micro)
        heat = self._temperature
        divergence = functional.kl_div(
            functional.log_softmax(said / heat, dim=-1),
            functional.log_softmax(taught / heat, dim=-1),
            reduction="sum",
            log_target=True,
        )
        own = functional.cross_entropy(said, labels(micro, said.device), reduction="sum")
        # Gradients of the softened term shrink with the square of the temperature.
        return self._weight * heat**2 * divergence + (1 - self._weight) * own


def distillation(settings: DistilSettings, student: BaseModel) -> Distillation:
    """The loss of a recipe; raises TrainingError where teacher and student read other ids."""
    base = BaseModel.find(settings.teacher)
    if base.tokenizer_sha256 != student.tokenizer_sha256:
        raise TrainingError(
            f"{base.id} and {student.id} have other vocabularies: logits cannot be compared; label"
            " rows with the teacher instead"
        )
    model = base_weights.load(base, settings.precision)
    if settings.adapter is None:
        return Distillation(model, settings)
    bundle = adapter.read(Path(settings.adapter))
    if bundle.manifest.base_sha256 != base.sha256:
        raise TrainingError(f"{bundle.path} was trained on another base than {base.id}")
    return Distillation(PeftModel.from_pretrained(model, bundle.path), settings)
