"""From a recipe to a bundle, on one screen.

sources ─rows→ dataset ─encode, preflight→ examples ─train→ weights ─canary, card→ bundle
"""

from __future__ import annotations

import datetime
import importlib
import itertools
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import NamedTuple

import msgspec

from proxy.protocol import tombstones
from proxy.protocol.adapter import Canary, Lineage, Manifest
from proxy.protocol.base_model import BaseModel
from proxy.protocol.fingerprints import fingerprint
from proxy.protocol.parity import Sample
from trainer import card, dataset, sources
from trainer import preflight as checks
from trainer.curate.build import Watch
from trainer.curate.build import build as curate
from trainer.dataset import SIDES, Dataset
from trainer.engines import checkpoint
from trainer.engines.base import Engine, Trained
from trainer.errors import TrainerError, TrainingError
from trainer.preflight import Check
from trainer.recipe import DistilSettings, Recipe
from trainer.recipe.sources import ExchangesSettings
from trainer.registry import bundles
from trainer.rows import Row
from trainer.sources.base import Skips
from trainer.tokens import Encoder, Example
from trainer.validation import Validation

CANARY_TOKENS = 24
"""Greedy tokens that a canary holds: enough to tell the adapter from the base."""
PARITY_SAMPLES = 20
"""Requests whose ids a bundle holds. Chosen: a template that differs differs in the first; twenty
cover what a domain's requests have, such as several tools or none."""
_REMEDY = {
    "peft": "run `make train-setup`",
    "unsloth": "install the extra `unsloth` in an environment of its own",
}


class Reserved(NamedTuple):
    """What a bundle will be called, and since when it is so: a run that is done again after it was
    killed makes the very same bundle."""

    id: str
    created_at: str
    """ISO 8601 date and time, UTC."""
    run: str = ""
    """The run that makes it; empty: named like its directory."""

    @classmethod
    def next(cls, adapters: Path, domain: str, taken: Iterable[str] = ()) -> Reserved:
        """The next id that is free in `adapters`, and not `taken` elsewhere, from now on."""
        now = datetime.datetime.now(datetime.UTC).isoformat(timespec="seconds")
        there = (path.name for path in adapters.glob("*"))
        return cls(bundles.next_id(domain, (*there, *taken)), now)


def build(
    recipe: Recipe,
    directory: Path,
    skips: Skips,
    on: str = "1",
    watch: Watch = lambda step, done, total: None,
) -> dataset.Manifest:
    """Read the recipe's sources and write the dataset to `directory`; `skips` gets what cannot be
    read. `on`: where the filters run, see `trainer/curate/execute.py`."""
    read = sources.rows(recipe.sources, skips)
    gone = erased(recipe)
    return curate(read, recipe, directory, on=on, skips=skips, erased=gone, watch=watch)


def erased(recipe: Recipe) -> frozenset[str]:
    """Exchanges that were erased from the records that the recipe reads."""
    records = [Path(s.directory) for s in recipe.sources if isinstance(s, ExchangesSettings)]
    return frozenset().union(*map(tombstones.erased, records))


def preflight(recipe: Recipe, made: Path | None, run: Path, skips: Skips) -> list[Check]:
    """All checks of a run, on the dataset in `made`, or on the recipe's own."""
    built = _dataset(recipe, made, run, skips)
    return _checks(recipe, built, BaseModel.find(recipe.base_model), run)


def train(
    recipe: Recipe,
    engine: Engine,
    run: Path,
    adapters: Path,
    skips: Skips,
    made: Path | None = None,
    reserved: Reserved | None = None,
) -> Path:
    """Check, train, write a new bundle in `adapters`; returns its path. `run` keeps the rest.

    `made` is a directory with a dataset; without, the recipe's is built. `reserved`: the bundle's
    id; the next one, without. A run that was stopped goes on where it was.
    """
    built = _dataset(recipe, made, run, skips)
    base = BaseModel.find(recipe.base_model)
    checks.require(_checks(recipe, built, base, run))
    encoder = Encoder.of(recipe, base)
    trained = _trained(recipe, engine, run, built, encoder)
    trained.save(run / "weights")
    reserved = reserved or Reserved.next(adapters, recipe.domain)
    made_bundle = bundle(recipe, built, base, encoder, trained, run, adapters, reserved)
    checkpoint.remove(run)
    return made_bundle


def assist(recipe: Recipe, engine: Engine, run: Path, made: Path) -> None:
    """Train along with the process that writes the bundle; see `trainer/engines/team.py`."""
    encoder = Encoder.of(recipe, BaseModel.find(recipe.base_model))
    _trained(recipe, engine, run, dataset.read(made), encoder)


def _trained(
    recipe: Recipe, engine: Engine, run: Path, built: Dataset, encoder: Encoder
) -> Trained:
    validation = Validation(built.validation, encoder, recipe.training.max_tokens)
    examples = list(_short(built.train, encoder, recipe))
    return engine.train(encoder.base, examples, recipe, run, validation)


def engine(recipe: Recipe) -> Engine:
    """The recipe's engine, whose libraries are imported here and not before; raises TrainerError
    where they are not installed."""
    name = recipe.training.engine
    try:
        if recipe.distil is not None:
            return _distilling(recipe, recipe.distil)
        found: Engine = importlib.import_module(f"trainer.engines.{name}").ENGINE
        return found
    except ImportError as error:
        raise TrainerError(
            f"training with {name} needs more than is installed ({error}); {_REMEDY[name]}"
        ) from error


def _distilling(recipe: Recipe, settings: DistilSettings) -> Engine:
    from trainer.distil import distillation
    from trainer.engines.peft import PeftEngine

    return PeftEngine(distillation(settings, BaseModel.find(recipe.base_model)))


def _dataset(recipe: Recipe, made: Path | None, run: Path, skips: Skips) -> Dataset:
    """The dataset in `made`; without one the recipe's, built now."""
    if made is None:
        build(recipe, run / "dataset", skips)
    return dataset.read(made or run / "dataset")


def _checks(recipe: Recipe, built: Dataset, base: BaseModel, run: Path) -> list[Check]:
    rows = [row for side in SIDES for row in getattr(built, side)]
    return checks.checks(recipe, Encoder.of(recipe, base), rows, run)


def _short(rows: list[Row], encoder: Encoder, recipe: Recipe) -> Iterator[Example]:
    for row in rows:
        example = encoder(row)
        if len(example.ids) <= recipe.training.max_tokens:
            yield example


def bundle(
    recipe: Recipe,
    built: Dataset,
    base: BaseModel,
    encoder: Encoder,
    trained: Trained,
    run: Path,
    adapters: Path,
    reserved: Reserved,
    note: str = "",
) -> Path:
    """Write what was trained as the domain's next version; `note` is for its card."""
    manifest = Manifest(
        id=reserved.id,
        domain=recipe.domain,
        format=recipe.format,
        base_model=base.id,
        base_sha256=base.sha256,
        base_precision=recipe.training.precision,
        tokenizer_sha256=base.tokenizer_sha256,
        template_sha256="",
        weights_sha256="",
        tool_fingerprints={
            function.name: fingerprint(function)
            for row in built.train
            for function in row.functions
        },
        dataset_fingerprint=built.fingerprint,
        run=reserved.run or run.name,
        recipe=msgspec.Raw(msgspec.json.encode(recipe)),
        seed=recipe.seed,
        versions=bundles.versions(),
        created_at=reserved.created_at,
    )
    return bundles.write(
        manifest,
        run / "weights",
        encoder.templates,
        _canary(built, encoder, trained),
        [*itertools.islice(_parity(built, encoder), PARITY_SAMPLES)],
        card.card(manifest, {side: len(getattr(built, side)) for side in SIDES}, note=note),
        adapters,
        Lineage(exchanges=sorted({row.exchange for row in _learnt(built) if row.exchange})),
    )


def _learnt(built: Dataset) -> Iterator[Row]:
    """Rows that had a say in the weights: what was learnt, and what said when to stop."""
    yield from built.train
    yield from built.validation


def _parity(built: Dataset, encoder: Encoder) -> Iterator[Sample]:
    """Requests with the ids that they were trained as: the validation's, then the training's."""
    for row in (*built.validation, *built.train):
        yield Sample(encoder.format(row).name, row.messages, row.functions, encoder.prompt(row))


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
