"""flywheel.yaml: which domains are trained from which traffic, when, and who is asked.

Paths start at the file's directory. An unknown key is an error with its path.
"""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Literal

import msgspec
import yaml

from trainer import recipe
from trainer.errors import FlywheelError, RecipeError
from trainer.recipe import Recipe, SourceSettings
from trainer.recipe.sources import ExchangesSettings

_Count = Annotated[int, msgspec.Meta(ge=1)]
_Whole = Annotated[int, msgspec.Meta(ge=0)]


class _Settings(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """What all have in common: an unknown key is an error."""


class EvaluationSettings(_Settings, frozen=True, kw_only=True):
    """Who is asked a run's held-out rows, and where."""

    base_url: str = ""
    """OpenAI endpoint of the proxy, `http://proxy:8080/v1`, which measures what is served:
    templates, quantisation, constraints. Empty: the models are asked in the trainer's own process,
    without constraints; slower, but nothing has to be running."""
    key_env: str = ""
    """Environment variable with a key of the proxy that may choose adapters; empty: no key."""
    sides: tuple[Literal["seen", "unseen"], ...] = ("seen", "unseen")
    """Sides of the dataset that are asked."""
    most: _Count = 150
    """Rows of a side, at most. Chosen: more narrow the intervals little for what they take on a
    CPU; a gate with a margin of three points wants some 700."""
    concurrency: _Count = 4
    """Requests at a time."""
    base: bool = True
    """Ask the base model, too, for the report. The gate does without it."""


class DomainSettings(_Settings, frozen=True, kw_only=True):
    """One domain's flywheel."""

    recipe: str
    """A YAML file, or the name of a shipped recipe. Its `domain` is replaced by this domain's
    name, so that a recipe can serve several."""
    record: str = ""
    """Directory of the record, `record.directory` of routes.yaml: the domain's exchanges there take
    the place of the recipe's sources."""
    sources: tuple[SourceSettings, ...] = ()
    """More sources, after the record, in the place of the recipe's. Empty, and no record: the
    recipe's own."""
    least_new: _Whole = 100
    """Clean rows that were in no run yet, below which a run does nothing. Chosen: fewer would be
    lost among those that are there already; 0: run whenever asked."""
    reference: Literal["cloud", "none"] = "cloud"
    """`cloud`: the candidate's answers are paired with those that the clouds gave to the same
    requests, as recorded. Where they are the labels, too, the cloud is right by definition, and
    the gate's `margin` is the share of answers that may differ from it. `none`: the gate's rule
    about the cloud must be off in the recipe (`gate: {margin: ~}`), or nothing is decidable."""
    evaluation: EvaluationSettings = EvaluationSettings()


class Flywheel(_Settings, frozen=True, kw_only=True):
    """The whole file."""

    version: Literal[1]
    runs: str = "runs"
    """Directory of the runs, one folder a domain."""
    adapters: str = "adapters"
    """Directory of the bundles and of the champion file."""
    domains: Annotated[dict[str, DomainSettings], msgspec.Meta(min_length=1)]


class Domain(msgspec.Struct, frozen=True, kw_only=True):
    """A domain's settings, with what they name found."""

    name: str
    settings: DomainSettings
    recipe: Recipe
    runs: Path
    """Where the domain's runs are."""
    adapters: Path


def read(path: Path) -> Flywheel:
    """The settings in a YAML file; raises FlywheelError with the file and the field."""
    try:
        return msgspec.convert(yaml.safe_load(path.read_text()), Flywheel)
    except OSError as error:
        raise FlywheelError(f"{path}: {error.strerror}; docs/flywheel.md has an example") from error
    except (yaml.YAMLError, msgspec.ValidationError, UnicodeDecodeError) as error:
        raise FlywheelError(f"{path}: {' '.join(str(error).split())}") from error


def domains(path: Path, named: str | None = None) -> list[Domain]:
    """The domains of the file at `path`, or the one with this name."""
    flywheel = read(path)
    if named is not None and named not in flywheel.domains:
        known = ", ".join(flywheel.domains)
        raise FlywheelError(f"{path} has no domain {named!r}; it has {known}")
    chosen = [named] if named is not None else [*flywheel.domains]
    return [_domain(name, flywheel, path.parent) for name in chosen]


def _domain(name: str, flywheel: Flywheel, here: Path) -> Domain:
    given = flywheel.domains[name]
    try:
        read = recipe.find(given.recipe, here)
    except RecipeError as error:
        raise FlywheelError(f"domains.{name}.recipe: {error}") from error
    sources = _sources(name, given, here) or read.sources
    return Domain(
        name=name,
        settings=given,
        recipe=msgspec.structs.replace(read, domain=name, sources=sources),
        runs=_place(flywheel.runs, here) / name,
        adapters=_place(flywheel.adapters, here),
    )


def _sources(name: str, given: DomainSettings, here: Path) -> list[SourceSettings]:
    if not given.record:
        return [*given.sources]
    record = ExchangesSettings(directory=str(_place(given.record, here)), domains=(name,))
    return [record, *given.sources]


def _place(written: str, here: Path) -> Path:
    return here / Path(written).expanduser()
