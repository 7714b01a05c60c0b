"""Comparisons of backends and adapters: what is compared, and how chance decides who is.

Chance is a hash of who asks and of what for: the same conversation is on the same side each time,
in each process and after each restart, and the draws of shadow, split and canary have nothing to do
with one another.
"""

from __future__ import annotations

import hashlib
from collections.abc import Mapping
from datetime import UTC, datetime
from typing import Annotated, Literal, TypeAlias

import msgspec

Share: TypeAlias = Annotated[float, msgspec.Meta(gt=0, le=1)]
AssignBy: TypeAlias = Literal["conversation", "caller"]
_Hours = Annotated[str, msgspec.Meta(pattern=r"^([01]\d|2[0-3]):[0-5]\d-([01]\d|2[0-3]):[0-5]\d$")]


class Shadow(msgspec.Struct, frozen=True, forbid_unknown_fields=True, kw_only=True):
    """Ask another backend too, once the client has its answer, and record what it says."""

    to: str
    """The backend that is asked; it need not be in the domain's plan."""
    share: Share = 0.1
    """Part of the conversations, each of which is shadowed whole. Default 0.1, chosen: at 1000
    requests a day some 100 pairs, with which a difference of 12 points shows."""
    max_in_flight: Annotated[int, msgspec.Meta(ge=1, le=256)] = 8
    """Shadows at once. Default 8: what a hanging backend can hold."""
    max_waiting: Annotated[int, msgspec.Meta(ge=1)] = 64
    """Requests that wait to be shadowed; more are dropped and counted. Default 64."""
    budget_usd_per_day: Annotated[float, msgspec.Meta(gt=0)] | None = None
    """US dollars of a day (UTC) after which no more is asked; kept over restarts. Default none: a
    local engine costs nothing by the token."""
    hours: _Hours | None = None
    """Hours of the day (UTC) in which it runs: `22:00-06:00`. Default none: all."""
    deadline_s: Annotated[float, msgspec.Meta(gt=0)] = 120
    """Seconds that an answer may take, and that an engine may be waited for. Default 120."""

    def is_open(self, at: float) -> bool:
        """Whether it runs at this time (seconds since the epoch)."""
        if self.hours is None:
            return True
        begin, end = self.hours.split("-")
        now = datetime.fromtimestamp(at, UTC).strftime("%H:%M")
        return begin <= now < end if begin < end else now >= begin or now < end


class Canary(msgspec.Struct, frozen=True, forbid_unknown_fields=True, kw_only=True):
    """Let another adapter than the champion answer a part of the conversations."""

    adapter: str
    """Id of a bundle in the adapters directory of the plan's first backend that has one."""
    share: Share = 0.05
    """Part of the conversations. Default 0.05, chosen: what a bad adapter may spoil."""


def draw(purpose: str, domain: str, who: str) -> float:
    """A number that is evenly spread over 0 to 1, the same each time."""
    digest = hashlib.sha256("\0".join((purpose, domain, who)).encode(errors="replace")).digest()
    return int.from_bytes(digest[:7]) / 2**56


def side(shares: Mapping[str, float], drawn: float) -> str:
    """The side that a draw falls on; the shares come to 1."""
    upper = 0.0
    for name, share in shares.items():
        upper += share
        if drawn < upper:
            return name
    return list(shares)[-1]
