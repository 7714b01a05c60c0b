"""What a calculation rests on, as a YAML file has it. An unknown key is an error with its path."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import msgspec
import yaml

from proxy.protocol.hardware import CostSettings, Hardware
from proxy.protocol.openai import Usage
from proxy.protocol.prices import Price
from trainer.errors import CostError, cause_of

Amount = Annotated[float, msgspec.Meta(ge=0)]
Share = Annotated[float, msgspec.Meta(ge=0, le=1)]
Count = Annotated[int, msgspec.Meta(ge=0)]


class _Settings(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """What all have in common: an unknown key is an error."""


class Tokens(_Settings, frozen=True, kw_only=True):
    """Of one request and its answer, on average."""

    prompt: Amount
    cached: Amount = 0
    """Of the prompt's, those that the provider has in its cache. Default 0."""
    completion: Amount

    def usd(self, price: Price) -> float:
        """What one costs, in US dollars."""
        # A million of them, since a price counts whole tokens.
        prompt, cached, completion = (
            round(1e6 * tokens) for tokens in (self.prompt, self.cached, self.completion)
        )
        return price.cost(Usage.of(prompt, completion), cached) / 1e6


class Making(_Settings, frozen=True, kw_only=True):
    """What one adapter takes, from labels to the gate's verdict."""

    gpu_hours: Amount = 1.0
    """Of training and evaluation. Default 1: 5,500 rows of 450 tokens, three passes at 1,500
    tokens/s on one RTX 3090 take 82 minutes; 300 rows take 4."""
    per_gpu_hour: Amount = 0.0
    """US dollars. Default 0: the own hardware trains while it is idle."""
    labels: Count = 0
    """Rows that a teacher labels anew. Default 0: the clouds' recorded answers are the labels."""
    label: Tokens = Tokens(prompt=1500, completion=60)
    """Of one label. Default: a tool call's."""
    judged: Count = 700
    """Answers that the cloud, or a judge, gives for an evaluation. Default 700: what a margin of
    three points takes."""
    judgement: Tokens = Tokens(prompt=1500, completion=60)
    people_hours: Amount = 1.0
    """Of looking at the report. Default 1, chosen."""


class Case(_Settings, frozen=True, kw_only=True):
    """One domain, or all that is answered at home."""

    calls: Amount = 1_000_000
    """A month."""
    tokens: Tokens = Tokens(prompt=1500, completion=60)
    """Of a call. Default: a tool call with some tools on offer."""
    model: str = "gpt-4o"
    """Of the cloud whose price counts, and that labels and judges."""
    price: Price | None = None
    """Its price, where the table of prices has none or another."""
    own: CostSettings = CostSettings(
        hardware=[Hardware(name="RTX 3090", price=1499, count=2, watts=350, idle_watts=25)],
        duty=0.3,
        per_kwh=0.1872,
        ops_hours=4,
        per_ops_hour=100,
        other_per_month=16,
    )
    """What answering at home costs. Default: two cards, a third of the time under load; 18.72 ct a
    kilowatt-hour (US homes, EIA, April 2026); four hours of a person; the host's electricity."""
    clouds_share: Share = 0.1
    """Share of the calls that the cloud answers all the same: fallbacks, and what is mirrored to it
    so that the next adapter has labels. Default 0.1: five per cent each, chosen."""
    making: Making = Making()
    retrainings: Amount = 1.0
    """A month, by schedule. Default 1."""
    schema_changes: Amount = 0.0
    """Of the tools, a month; each takes a training out of schedule. Default 0."""
    first_hours: Amount = 40
    """Of people, until the first adapter serves. Default 40, chosen: a week."""
    rows: Count | None = None
    """Clean rows that are there. Default: not known."""
    least_rows: Count = 300
    """Rows to train on below which it is not worth trying. Default 300: the fewest with which a
    gain was published, and shown here (docs/results)."""
    margin: Annotated[float, msgspec.Meta(gt=0, lt=1)] = 0.03
    """The gate's margin beside the cloud; how many held-out rows it takes follows from it."""
    discordance: Share = 0.1
    """Share of held-out rows of which one side alone is right. Default 0.1, chosen."""
    payback_months: Amount = 12
    """Months in which what was spent at first must be back. Default 12, chosen: prices for the same
    quality fall by half or more in a year."""


def read(path: Path) -> Case:
    """The case in a YAML file; raises CostError with the file and the field."""
    try:
        return msgspec.convert(yaml.safe_load(path.read_text()) or {}, Case)
    except OSError as error:
        raise CostError(f"{path}: {error.strerror}; docs/costs.md has an example") from error
    except (yaml.YAMLError, msgspec.ValidationError, UnicodeDecodeError) as error:
        raise CostError(f"{path}: {cause_of(error)}") from error
