"""The two forms of the proof: how much is asked, trained and held out in each."""

from __future__ import annotations

from dataclasses import dataclass

DOMAIN = """domain: {domain}
format: structured
template: structured
sources:
  - {{kind: exchanges, directory: record, domains: [{domain}]}}
# Every request is kept as it was asked; the newest are held out, with names that nobody trained on.
split: {{unseen_tools: 0, seen: {seen}, validation: 24, newest: true, ledger: ledgers/{domain}}}
variety: {{copies: 1, distractors: ~, unrelated: 0, hard: 0, negatives: 1}}
training:
  learning_rate: {learning_rate}
  epochs: {epochs}
  max_steps: {steps}
  batch_rows: {rows}
  micro_rows: {rows}
  max_tokens: 512
gate:
  margin: {margin}
  champion_margin: {champion_margin}
  false_calls: {false_calls}
  schema_validity: {validity}
  slice_items: 40 # smaller ones show nothing beside a cloud that is always right
decoding: {{max_new_tokens: 96}}
seed: 7
"""

SETTINGS = """version: 1
domains:
{domains}
"""
FLYWHEEL = """  {domain}:
    recipe: {domain}.yaml
    record: record
    least_new: 50
    evaluation: {{base_url: "{base_url}", sides: [seen], most: {held_out}, base: false}}
    # A canary of minutes: half of the conversations, then all. Days, more stages, and first of all
    # a shadow are usual.
    promotion:
      shadow_pairs: 0
      stages: [{{share: 0.5, min_conversations: {tried}, max_conversations: {tried}, min_s: 1}}]
      rules: [invalid, rescued, disagreed]
      settle_s: 3
      hold_s: 5
    proxies: ["{base_url}"]
"""


@dataclass(frozen=True, kw_only=True)
class Form:
    """One form."""

    name: str
    taught: int
    """Conversations of each domain that the cloud answers before the first run."""
    shown: int
    """Conversations of each domain after it, of which the second run learns, too."""
    seen: float
    """Share of the rows that is held out."""
    held_out: int
    """Rows that are asked in an evaluation, at most."""
    tried: int
    """Conversations that a candidate answers in its canary."""
    base: int
    """Rows that the base model is asked."""
    steps: int
    epochs: int
    learning_rate: float
    rows: int
    """Of a step."""
    margin: float
    """Points that a candidate may be worse than a cloud that is right by construction."""
    champion_margin: float
    false_calls: float
    validity: float
    damaged_steps: int
    """Steps of the candidate that learns shuffled labels."""
    damaged_held_out: int
    """Rows that it is asked."""
    second: bool
    """Whether there is a second run."""

    def recipe(self, domain: str, steps: int | None = None) -> str:
        return DOMAIN.format(
            domain=domain,
            seen=self.seen,
            learning_rate=self.learning_rate,
            epochs=self.epochs,
            steps=steps or self.steps,
            rows=self.rows,
            margin=self.margin,
            champion_margin=self.champion_margin,
            false_calls=self.false_calls,
            validity=self.validity,
        )

    def settings(self, domains: list[str], base_url: str) -> str:
        told = "".join(
            FLYWHEEL.format(
                domain=name, base_url=base_url, held_out=self.held_out, tried=self.tried
            )
            for name in domains
        )
        return SETTINGS.format(domains=told)


FULL = Form(
    name="full",
    taught=800,
    shown=240,
    seen=0.22,
    held_out=220,
    tried=30,
    base=60,
    steps=150,
    epochs=2,
    learning_rate=1e-3,
    rows=6,
    margin=0.15,
    champion_margin=0.05,
    false_calls=0.10,
    validity=0.97,
    damaged_steps=40,
    damaged_held_out=220,
    second=True,
)
SMALL = Form(
    name="small",
    taught=580,
    shown=60,
    seen=0.22,
    held_out=140,
    tried=10,
    base=24,
    steps=90,
    epochs=1,
    learning_rate=1e-3,
    rows=6,
    margin=0.25,
    champion_margin=0.10,
    false_calls=0.20,
    validity=0.95,
    damaged_steps=12,
    damaged_held_out=40,
    second=False,
)
