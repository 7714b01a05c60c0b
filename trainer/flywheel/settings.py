"""flywheel.yaml: which domains are trained from which traffic, when, and who is asked.

Paths start at the file's directory. An unknown key is an error with its path.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Annotated, Literal, TypeAlias

import msgspec
import yaml

from proxy.protocol.adapter import AdapterError
from proxy.protocol.champions import Alias
from proxy.protocol.places import place
from trainer import recipe
from trainer.errors import FlywheelError, RecipeError, cause_of
from trainer.promotion.settings import PromotionSettings
from trainer.recipe import Recipe, SourceSettings
from trainer.recipe.curation import Share
from trainer.recipe.sources import ExchangesSettings
from trainer.registry.registry import Registry

_Count = Annotated[int, msgspec.Meta(ge=1)]
_Whole = Annotated[int, msgspec.Meta(ge=0)]
Weekday: TypeAlias = Literal["mon", "tue", "wed", "thu", "fri", "sat", "sun", "daily"]


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


class FallingSettings(_Settings, frozen=True, kw_only=True):
    """A share that must not fall, watched by a test that holds however often one looks."""

    floor: Share | None = None
    """Due when the share is shown to lie below. `~`: for agreement, the lower end of the interval
    that the champion's own run measured."""
    certainty: Annotated[float, msgspec.Meta(gt=0.5, lt=1)] = 0.95
    """Chance of being spared a false alarm, over all looks together. Chosen: usual."""


class CalendarSettings(_Settings, frozen=True, kw_only=True):
    """Times at which a run is due, whatever the traffic. `least_new` holds all the same."""

    every_days: Annotated[float, msgspec.Meta(gt=0)] | None = None
    """Days since the last run began."""
    weekday: Weekday | None = None
    """At `hour` of this day of the week; `daily`: of every day."""
    hour: Annotated[int, msgspec.Meta(ge=0, le=23)] = 3
    """UTC."""

    def __post_init__(self) -> None:
        if self.every_days is None and self.weekday is None:
            raise ValueError("a calendar names `every_days` or `weekday`")


class TriggerSettings(_Settings, frozen=True, kw_only=True):
    """When `watch` runs a domain; `~` switches a trigger off. `run` asks none of them."""

    rows: _Count | None = 500
    """New clean rows. Chosen: a fifth of what a domain's first adapter takes."""
    drift: _Count | None = 20
    """New clean rows that offer a tool by a schema that neither the champion was trained with nor
    the last run read. Chosen: one client that tries something out makes fewer."""
    agreement: FallingSettings | None = FallingSettings()
    """The champion's agreement with the cloud, where both answered the same request (shadows) and
    the cloud called a tool."""
    feedback: FallingSettings | None = FallingSettings(floor=0.8)
    """Thumbs up among the thumbs for the champion's answers. Chosen: one in five is unhappy."""
    calendar: CalendarSettings | None = None
    """Off: traffic and quality decide."""
    erasure: bool = True
    """The champion learnt from exchanges that were erased since its domain's last run began.
    `least_new` does not hold then: what was erased has to be unlearnt, new rows or none."""


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
    general: str = ""
    """Another domain of the champion file, whose champion was trained for several: it is asked the
    held-out rows, too, and the gate decides on whichever of the new adapter, this one, and both in
    turn is shown to be the best; where nothing is shown, on the new one. Empty: there is none."""
    evaluation: EvaluationSettings = EvaluationSettings()
    triggers: TriggerSettings = TriggerSettings()
    promotion: PromotionSettings | None = PromotionSettings()
    """How a candidate that passed its gate comes to answer clients: docs/promotion.md. It takes a
    record, for the evidence. `~`: it answers all of them at once."""
    proxies: tuple[str, ...] = ()
    """Address of each proxy that serves the domain, `http://10.0.0.7:8080`, not a balancer's: all
    must have proven a candidate before it answers. Empty: nobody is asked, and each proxy decides
    alone when it is ready."""
    admin_key_env: str = ""
    """Environment variable with a key of the proxies that is an admin's; empty: no key."""


class Flywheel(_Settings, frozen=True, kw_only=True):
    """The whole file."""

    version: Literal[1]
    runs: str = "runs"
    """Directory of the runs, one folder a domain."""
    adapters: str = "adapters"
    """Directory of the bundles and of the champion file."""
    registry: str = ""
    """Where bundles are kept for good and champions are named: a directory, or a bucket's URL,
    `s3://models/geo`, whose endpoint and credentials are the environment's (docs/registry.md).
    Empty: `adapters`. With another one, `adapters` holds copies of what is compared."""
    domains: Annotated[dict[str, DomainSettings], msgspec.Meta(min_length=1)]


class Domain(msgspec.Struct, frozen=True, kw_only=True):
    """A domain's settings, with what they name found."""

    name: str
    settings: DomainSettings
    recipe: Recipe
    runs: Path
    """Where the domain's runs are."""
    adapters: Path
    """Where bundles are read from when a model is asked in this process."""
    place: str
    """The registry's directory or URL."""

    @property
    def registry(self) -> Registry:
        """Where champions are named; every method raises AdapterError."""
        return Registry(self.place)

    @property
    def alias(self) -> Alias:
        """What the domain's name stands for now; raises FlywheelError."""
        with _translated():
            return self.registry.champions().domains.get(self.name, Alias())

    @property
    def general(self) -> str:
        """The general adapter of now; empty for none. Raises FlywheelError."""
        with _translated():
            return self.registry.champions().serving.get(self.settings.general, "")

    @property
    def bundles(self) -> list[str]:
        """Ids of all bundles of the registry; raises FlywheelError."""
        with _translated():
            return self.registry.ids()


@contextmanager
def _translated() -> Iterator[None]:
    try:
        yield
    except AdapterError as error:
        raise FlywheelError(str(error)) from error


def read(path: Path) -> Flywheel:
    """The settings in a YAML file; raises FlywheelError with the file and the field."""
    try:
        return msgspec.convert(yaml.safe_load(path.read_text()), Flywheel)
    except OSError as error:
        raise FlywheelError(f"{path}: {error.strerror}; docs/flywheel.md has an example") from error
    except (yaml.YAMLError, msgspec.ValidationError, UnicodeDecodeError) as error:
        raise FlywheelError(f"{path}: {cause_of(error)}") from error


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
    if given.promotion is not None and not any(isinstance(s, ExchangesSettings) for s in sources):
        raise FlywheelError(
            f"domains.{name}: a promotion step by step takes traffic as evidence; name the"
            " `record`, or set `promotion: ~`"
        )
    return Domain(
        name=name,
        settings=given,
        recipe=msgspec.structs.replace(read, domain=name, sources=sources),
        runs=place(flywheel.runs, here) / name,
        adapters=place(flywheel.adapters, here),
        place=_registry(flywheel, here),
    )


def _registry(flywheel: Flywheel, here: Path) -> str:
    named = flywheel.registry or flywheel.adapters
    return named if "://" in named else str(place(named, here))


def _sources(name: str, given: DomainSettings, here: Path) -> list[SourceSettings]:
    if not given.record:
        return [*given.sources]
    record = ExchangesSettings(directory=str(place(given.record, here)), domains=(name,))
    return [record, *given.sources]
