"""Knobs: how a candidate comes to answer a domain, and what sends it back."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Literal, TypeAlias, get_args

import msgspec
import yaml
from msgspec.structs import replace

from trainer.errors import PromotionError, cause_of

RuleName: TypeAlias = Literal["invalid", "rescued", "disagreed", "disliked", "tool_failed", "slow"]
RULES: tuple[RuleName, ...] = get_args(RuleName)
UNSEEN: tuple[RuleName, ...] = ("invalid", "disagreed")
"""Rules that a shadow can tell something of: no client had that answer."""
UNSAID = 0.2
"""Part of the answers that may differ from the cloud's where neither settings nor gate say it."""
Seconds: TypeAlias = Annotated[float, msgspec.Meta(ge=0)]
Share: TypeAlias = Annotated[float, msgspec.Meta(gt=0, le=1)]


class Stage(msgspec.Struct, frozen=True, forbid_unknown_fields=True, kw_only=True):
    """A share of the conversations, and how long it lasts."""

    share: Annotated[float, msgspec.Meta(gt=0, le=1)]
    """Part of the conversations that the candidate answers, 0 to 1."""
    min_conversations: Annotated[int, msgspec.Meta(ge=1)] = 20
    """Conversations of the candidate before anybody goes on. Default 20, chosen: one that fails
    every fourth has failed five times by then, which stops it."""
    max_conversations: Annotated[int, msgspec.Meta(ge=1)] = 100
    """Conversations after which it goes on although nobody has shown that it is not worse. Default
    100, chosen: the gate has shown that on held-out items; a canary looks for what those miss."""
    min_s: Seconds = 60
    """Seconds that it lasts at least. Default 60: what only shows after a while, such as a server
    that runs out of memory, gets a chance to."""

    def __post_init__(self) -> None:
        if self.max_conversations < self.min_conversations:
            raise ValueError("`max_conversations` is below `min_conversations`")


class Limits(msgspec.Struct, frozen=True, forbid_unknown_fields=True, kw_only=True):
    """What a domain's first adapter may fail: nobody of ours answers beside it, and a cloud is
    right by definition. Parts of its conversations, 0 to 1, by the first request of each that
    tells."""

    invalid: Share = 0.1
    """Default 0.1, chosen: each costs a second attempt, and no client notices."""
    rescued: Share = 0.25
    """Default 0.25, chosen: each costs the cloud's price and a wait; three of four are saved."""
    disagreed: Share | None = None
    """Default: what the gate allows (`Verdict.may_differ`); where it says nothing, 0.2, chosen: a
    candidate that was forced past it is to be found out, too."""

    @property
    def shares(self) -> dict[RuleName, float]:
        """Rule → its limit."""
        disagreed = UNSAID if self.disagreed is None else self.disagreed
        return {"invalid": self.invalid, "rescued": self.rescued, "disagreed": disagreed}


class PromotionSettings(msgspec.Struct, frozen=True, forbid_unknown_fields=True, kw_only=True):
    """Stages, stop rules and times of a promotion."""

    shadow_pairs: Annotated[int, msgspec.Meta(ge=0)] = 40
    """Conversations in which the candidate is asked out of the clients' sight before it answers
    any; 0: none. Default 40, chosen: 12 that it alone fails stop it, so that one which fails half
    of them is gone before a client has seen it (docs/promotion.md)."""
    shadow_share: Annotated[float, msgspec.Meta(gt=0, le=1)] = 0.25
    """Part of the conversations that it is asked about then. Default 0.25, chosen: 40 pairs out of
    160 conversations; they take only places that the engine has to spare."""
    shadow_s: Seconds = 3600
    """Seconds after which the first share begins though fewer pairs came: an engine without a place
    to spare, or a domain that is not recorded in full, makes none. Default an hour."""
    stages: tuple[Stage, ...] = (Stage(share=0.05), Stage(share=0.25), Stage(share=0.5))
    """Growing shares; full share follows. Default 5, 25, 50 %: the first bounds what a bad one
    spoils, the last compares sides of equal size."""
    rules: tuple[RuleName, ...] = RULES
    """What is compared between the candidate's conversations and the champion's; any of them stops
    the promotion. Default all: those of which the record says nothing never stop anybody."""
    limits: Limits = Limits()
    """What a candidate may fail in a domain that has no adapter to compare it with."""
    alpha: Annotated[float, msgspec.Meta(gt=0, lt=0.5)] = 0.05
    """Chance that a candidate as good as the champion is sent back, by whichever rule, in whichever
    stage, however often somebody looks. Default 0.05, usual."""
    margin: Annotated[float, msgspec.Meta(gt=0, lt=1)] = 0.1
    """A candidate that is shown to fail less than this share more of its conversations need not
    wait for `max_conversations`. Default 0.1, chosen: what some 60 flawless ones show."""
    slow_factor: Annotated[float, msgspec.Meta(ge=1)] = 1.5
    """A request is slow that takes longer than so many times what 95 % of the champion's took in
    the day before. Default 1.5, chosen: less is noise on a shared machine."""
    unit: Literal["conversation", "caller"] = "conversation"
    """What chance assigns as a whole: the domain's `assign_by` in routes.yaml. Default as there."""
    settle_s: Seconds = 5
    """Seconds after a change of share whose requests do not count: proxies look at the champion
    file each second. Default 5."""
    loading_s: Seconds = 1800
    """Seconds within which every proxy must have proven the candidate. Default 1800: TGI restarts
    server by server."""
    patience_s: Seconds = 7 * 24 * 3600
    """Seconds that a stage may take; then the candidate is taken back for want of traffic, so that
    it does not stand in the next one's way. Default a week."""
    hold_s: Seconds = 24 * 3600
    """Seconds for which a new champion is watched, and the former one stays loaded. Default a day:
    it has a day's traffic."""
    cooldown_s: Seconds = 24 * 3600
    """Seconds after a rollback in which the domain gets no candidate. Default a day: the next one
    shall have seen what this one stumbled over."""

    def __post_init__(self) -> None:
        shares = [stage.share for stage in self.stages]
        if not shares or shares != sorted(set(shares)):
            raise ValueError("`stages` are shares that grow, at least one")
        if not self.rules:
            raise ValueError("`rules` are empty; without one nothing stops a bad candidate")

    @property
    def alpha_of_a_test(self) -> float:
        """The chance that each test gets: of each rule, in each stage and while it is held."""
        unseen = len(set(UNSEEN) & set(self.rules)) if self.shadow_pairs else 0
        return self.alpha / (len(self.rules) * (len(self.stages) + 1) + unseen)

    def allowing(self, differ: float | None) -> PromotionSettings:
        """With what the gate allows as the limit of `disagreed`, unless one is set; None: the gate
        says nothing."""
        if differ is None or self.limits.disagreed is not None:
            return self
        return replace(self, limits=replace(self.limits, disagreed=differ))


def read(path: Path) -> PromotionSettings:
    """The settings in a YAML file; raises PromotionError with the file and the field."""
    try:
        return msgspec.convert(yaml.safe_load(path.read_text()) or {}, PromotionSettings)
    except OSError as error:
        raise PromotionError(f"{path}: {error.strerror}") from error
    except (yaml.YAMLError, msgspec.ValidationError, UnicodeDecodeError) as error:
        raise PromotionError(f"{path}: {cause_of(error)}") from error
