"""From the record's preferences to a bundle: an adapter, taught by what it got wrong.

record ─pairs, thumbs→ preferences ─preflight→ DPO or KTO on the adapter ─canary→ the next version
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Literal, TypeAlias

import msgspec
import torch
from peft import PeftModel

from proxy.protocol.adapter import Adapter
from proxy.protocol.base_model import BaseModel
from trainer import pipeline, preflight
from trainer.dataset import Dataset
from trainer.engines import base_weights, preferring
from trainer.engines.peft import PeftTrained
from trainer.errors import PreflightError, TrainingError
from trainer.preferences import Judged, Pair, judged, pairs, trainable
from trainer.recipe import Recipe
from trainer.recipe.sources import ExchangesSettings
from trainer.rows import Row
from trainer.sources.base import Skips
from trainer.sources.exchanges import is_wanted, open_shelf, translated
from trainer.tokens import Encoder

Method: TypeAlias = Literal["dpo", "kto"]
Preference: TypeAlias = Pair | Judged
HELD_OUT = 10
"""One conversation in so many is kept for the canary. Chosen: enough to find one that differs."""


PREFERENCES = "preferences.jsonl"
"""What was learnt from, in the run's directory: [chosen, rejected, why], or [row, good], a line."""


def found(recipe: Recipe, method: Method, encoder: Encoder, skips: Skips) -> list[Preference]:
    """What the recipe's records hold and the format can say, oldest first.

    Raises PreflightError where that is less than `preferences.least`.
    """
    most, usable = recipe.training.max_tokens, list[Preference]()
    for settings in recipe.sources:
        if isinstance(settings, ExchangesSettings):
            with translated(settings.directory):
                shelf = open_shelf(settings, skips)
                exchanges = [one for one in shelf.exchanges() if is_wanted(settings, one)]
                said = list(shelf.feedback())
            read = pairs(exchanges, said) if method == "dpo" else judged(exchanges, said)
            usable += [one for one in read if trainable(_sides(one), encoder, most)]
    least = recipe.preferences.least
    if len(usable) < least:
        raise PreflightError(
            f"{len(usable)} {'pairs' if method == 'dpo' else 'thumbs'} in the recipe's records, and"
            f" `preferences.least` is {least}: collect more, or lower it"
        )
    return usable


def train(
    recipe: Recipe, parent: Adapter, method: Method, run: Path, adapters: Path, skips: Skips
) -> Path:
    """Train `parent` further, write the next version in `adapters`; returns its path."""
    base = BaseModel.find(recipe.base_model)
    if base.sha256 != parent.manifest.base_sha256:
        raise TrainingError(f"{parent.path} was trained on other weights than {base.id}'s")
    encoder = Encoder.of(recipe, base)
    learnt, held_out = apart(found(recipe, method, encoder, skips))
    built = Dataset(train=_good(learnt), validation=_good(held_out), seen=[], unseen=[], dropped={})
    preflight.require(preflight.checks(recipe, encoder, built.train + built.validation, run))
    lines = (msgspec.json.encode(one) + b"\n" for one in (*learnt, *held_out))
    (run / PREFERENCES).write_bytes(b"".join(lines))
    torch.manual_seed(recipe.seed)
    model = PeftModel.from_pretrained(
        base_weights.load(base, recipe.training.precision),
        parent.path,
        is_trainable=True,
        autocast_adapter_dtype=False,
    )
    trained = _taught(model, encoder, learnt, recipe, run)
    trained.save(run / "weights")
    note = f"On top of {parent.id}, by {method.upper()} on {len(learnt)} preferences of the record."
    reserved = pipeline.Reserved.next(adapters, recipe.domain)
    return pipeline.bundle(recipe, built, base, encoder, trained, run, adapters, reserved, note)


def apart(usable: Sequence[Preference]) -> tuple[list[Preference], list[Preference]]:
    """(what is learnt, what is kept for the canary): whole conversations, every tenth of them."""
    groups = list(dict.fromkeys(_sides(one)[0].group for one in usable))
    kept = set(groups[::HELD_OUT])
    if len(groups) == 1:
        raise PreflightError("all preferences are of one conversation; collect some of others")
    learnt = [one for one in usable if _sides(one)[0].group not in kept]
    return learnt, [one for one in usable if _sides(one)[0].group in kept]


def _taught(
    model: PeftModel, encoder: Encoder, learnt: list[Preference], recipe: Recipe, run: Path
) -> PeftTrained:
    settings = recipe.preferences
    couples = [one for one in learnt if isinstance(one, Pair)]
    if couples:
        return preferring.dpo(model, encoder, couples, settings, run, recipe.seed)
    alone = [one for one in learnt if isinstance(one, Judged)]
    if len({one.good for one in alone}) < 2:
        raise PreflightError("KTO needs thumbs of both kinds, and the record has one kind only")
    return preferring.kto(model, encoder, alone, settings, run, recipe.seed)


def _sides(one: Preference) -> list[Row]:
    return [one.chosen, one.rejected] if isinstance(one, Pair) else [one.row]


def _good(some: Sequence[Preference]) -> list[Row]:
    """The answers that are to become likelier."""
    return [_sides(one)[0] for one in some if isinstance(one, Pair) or one.good]
