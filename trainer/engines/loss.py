"""Cross-entropy over the completions, and over nothing else.

Only supervised positions reach the output layer: with 49,152 or 128,256 words of vocabulary, the
logits of a prompt would take more memory than the model.
"""

from __future__ import annotations

import math
from collections.abc import Iterator

import torch
from peft import PeftModel
from torch.nn import functional
from transformers import PreTrainedModel

from trainer.batches import MicroBatch

_ROUND = 32
"""Micro-batches are as long as a multiple of this: on CPUs each new shape makes oneDNN keep another
set of kernels, and a run with hundreds of shapes grew by gigabytes (docs/LOG.md)."""


def logits(model: PeftModel | PreTrainedModel, micro: MicroBatch) -> torch.Tensor:
    """fp32 logits (supervised tokens, vocabulary) that predict the completions, in their order."""
    longest = _ROUND * math.ceil(max(len(example.ids) for example in micro) / _ROUND)
    # Padding stands on the right and attention is causal: no real token ever looks at it, so that
    # no mask is needed (a mask would keep attention from its fast kernel), and it is never a label.
    ids = torch.tensor([e.ids + [0] * (longest - len(e.ids)) for e in micro], device=model.device)
    causal = model.get_base_model() if isinstance(model, PeftModel) else model
    hidden = causal.model(input_ids=ids, use_cache=False).last_hidden_state
    rows, columns = map(list, zip(*predicting(micro), strict=True))
    return functional.linear(hidden[rows, columns], causal.lm_head.weight).float()


def labels(micro: MicroBatch, device: torch.device) -> torch.Tensor:
    """Ids (supervised tokens,) that `logits` should predict."""
    return torch.tensor([t for e in micro for t in e.completion], device=device)


def cross_entropy(model: PeftModel, micro: MicroBatch) -> torch.Tensor:
    """Summed over the completions' tokens."""
    predicted = logits(model, micro)
    return functional.cross_entropy(predicted, labels(micro, predicted.device), reduction="sum")


def predicting(micro: MicroBatch) -> Iterator[tuple[int, int]]:
    """(row, column) of every position whose next token is supervised."""
    for row, example in enumerate(micro):
        for column in range(example.prompt - 1, len(example.ids) - 1):
            yield row, column
