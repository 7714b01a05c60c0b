"""From a recipe to a bundle, on one screen.

sources ─rows→ dataset ─encode, preflight→ examples ─train→ weights ─canary, card→ bundle
"""

from __future__ import annotations

import datetime
from collections.abc import Iterator
from pathlib import Path

import msgspec

from proxy.protocol.adapter import Canary, Manifest
from proxy.protocol.base_model import BaseModel
from proxy.protocol.formats.base import template
from proxy.protocol.toolcheck import fingerprint
from trainer import card, dataset, registry, sources
from trainer.curate.build import build as curate
from trainer.dataset import SIDES, Dataset
from trainer.engines.base import Engine, Trained
from trainer.errors import TrainingError
from trainer.recipe import Recipe
from trainer.rows import Row
from trainer.sources.base import Skips
from trainer.tokens import Encoder, Example

CANARY_TOKENS = 24
"""Greedy tokens that a canary holds: enough to tell the adapter from the base."""


def build(recipe: Recipe, directory: Path, skips: Skips) -> Dataset:
    """Read the recipe's sources and write the dataset to `directory`; `skips` gets what cannot be
    read."""
    curate(sources.rows(recipe.sources, skips), recipe, directory, skips=skips)
    return dataset.read(directory)


def train(recipe: Recipe, engine: Engine, run: Path, adapters: Path, skips: Skips) -> Path:
    """Build, train, write a new bundle in `adapters`; returns its path. `run` keeps the rest."""
    built = build(recipe, run / "dataset", skips)
    base = BaseModel.find(recipe.base_model)
    encoder = Encoder(base, template(recipe.template), recipe.format)
    encoder.preflight([row for side in SIDES for row in getattr(built, side)])
    trained = engine.train(base, list(_short(built.train, encoder, recipe)), recipe, run)
    trained.save(run / "weights")
    return _bundle(recipe, built, base, encoder, trained, run, adapters)


def _short(rows: list[Row], encoder: Encoder, recipe: Recipe) -> Iterator[Example]:
    for row in rows:
        example = encoder(row)
        if len(example.ids) <= recipe.training.max_tokens:
            yield example


def _bundle(
    recipe: Recipe,
    built: Dataset,
    base: BaseModel,
    encoder: Encoder,
    trained: Trained,
    run: Path,
    adapters: Path,
) -> Path:
    manifest = Manifest(
        id=registry.next_id(adapters, recipe.domain),
        domain=recipe.domain,
        format=recipe.format,
        base_model=base.id,
        base_sha256=base.sha256,
        tokenizer_sha256=base.tokenizer_sha256,
        template_sha256="",
        weights_sha256="",
        tool_fingerprints={
            function.name: fingerprint(function)
            for row in built.train
            for function in row.functions
        },
        dataset_fingerprint=built.fingerprint,
        recipe=msgspec.Raw(msgspec.json.encode(recipe)),
        seed=recipe.seed,
        versions=registry.versions(),
        created_at=datetime.datetime.now(datetime.UTC).isoformat(timespec="seconds"),
    )
    return registry.write(
        manifest,
        run / "weights",
        template(recipe.template),
        _canary(built, encoder, trained),
        card.card(manifest, {side: len(getattr(built, side)) for side in SIDES}),
        adapters,
    )


def _canary(built: Dataset, encoder: Encoder, trained: Trained) -> Canary:
    """The first prompt of the validation rows on which adapter and base differ."""
    for row in built.validation:
        prompt = encoder.prompt(row)
        expected = trained.greedy(prompt, CANARY_TOKENS)
        base = trained.greedy(prompt, CANARY_TOKENS, adapter=False)
        if expected != base:
            return Canary(prompt, expected, base)
    raise TrainingError(
        "the adapter answers like its base on every validation row; it learnt nothing"
    )
