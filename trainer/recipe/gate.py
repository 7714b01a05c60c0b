"""Knobs: what a candidate must show before it may answer a domain's requests."""

from __future__ import annotations

from typing import Literal

import msgspec


class GateSettings(msgspec.Struct, frozen=True, forbid_unknown_fields=True, kw_only=True):
    """The rules of the gate. A rule that is set to null does not apply."""

    figure: Literal["call_exact", "call_match", "bfcl"] = "call_exact"
    """What is right: a field of `scorers.toolcall.Score`."""
    alpha: float = 0.05
    """Chance of promoting one that just misses a rule, 0 to 0.5. Chosen: usual."""
    margin: float | None = 0.03
    """At most this share of right answers fewer than the cloud. Chosen: three points take some
    700 paired items where one in ten is answered differently."""
    champion_margin: float = 0.02
    """At most this share fewer than the champion, where the candidate is cheaper instead."""
    false_calls: float | None = 0.10
    """At most this share of calls where nothing must be called, by its upper bound. Chosen: the
    share at which base models start; training on calls raises it (docs/evaluation.md)."""
    schema_validity: float | None = 0.99
    """At least this share of answers that satisfy their schema, by its lower bound."""
    p95_seconds: float | None = None
    """At most so many seconds for 95 % of the answers. Depends on the machine, hence not set."""
    slice_items: int = 20
    """Slices (tools, categories) with fewer pairs are not tested: they could show nothing."""
    critical: tuple[str, ...] = ()
    """Ids of rows that no candidate may get wrong that the champion, or without one the cloud,
    got right."""
    parity: bool = True
    """Whether served and in-process prompts must have been found equal, token by token."""
    canaries: bool = False
    """Whether the personal-data canaries must have been asked for; none may come out."""
    machine_usd_hour: float = 0.2
    """What an hour of the machine of local models costs, in US dollars; for who is cheaper.
    Chosen: a rented RTX 3090."""
    approval: bool = False
    """Whether a person must approve what the rules would promote."""
    sealed: bool = True
    """Whether the sealed side must be passed too, where the dataset has one."""
    sealed_openings: int = 12
    """After so many openings the sealed side is worn: the verdict says to draw a new one."""

    def __post_init__(self) -> None:
        if not 0 < self.alpha < 0.5:
            raise ValueError("`alpha` lies between 0 and 0.5")
        for name in ("margin", "champion_margin", "false_calls", "schema_validity"):
            share = getattr(self, name)
            if share is not None and not 0 < share < 1:
                raise ValueError(f"`{name}` is a share between 0 and 1")
