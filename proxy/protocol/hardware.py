"""What own hardware costs, as routes.yaml has it (`costs`).

The monthly cost is purchase over life, electricity under load and idle, and what people and the
rest cost.
"""

from __future__ import annotations

from typing import Annotated

import msgspec

_Amount = Annotated[float, msgspec.Meta(ge=0)]
_Share = Annotated[float, msgspec.Meta(ge=0, le=1)]
_HOURS = 730
"""Of a month."""


class Hardware(msgspec.Struct, frozen=True, forbid_unknown_fields=True, kw_only=True):
    """Machines or cards of one kind."""

    name: str
    price: _Amount
    """Of one, when it was bought; 0 for what is rented (`other_per_month`)."""
    life_months: Annotated[float, msgspec.Meta(gt=0)] = 36
    """Months until it is written off. Default 36."""
    count: Annotated[int, msgspec.Meta(ge=1)] = 1
    watts: _Amount
    """Of one under load."""
    idle_watts: _Amount = 0
    """Of one that waits. Default 0."""


class CostSettings(msgspec.Struct, frozen=True, forbid_unknown_fields=True, kw_only=True):
    """All that answering at home costs, in one currency."""

    usd: Annotated[float, msgspec.Meta(gt=0)] = 1.0
    """Dollars that one unit of the amounts here is worth, 1.08 for euro perhaps. Default 1."""
    hardware: Annotated[list[Hardware], msgspec.Meta(min_length=1)]
    duty: _Share
    """Share of the time that the hardware is under load, 0 to 1."""
    per_kwh: _Amount
    """What a kilowatt-hour costs."""
    pue: Annotated[float, msgspec.Meta(ge=1)] = 1.0
    """Electricity of the room for each that the hardware draws. Default 1: no cooling."""
    ops_hours: _Amount = 0
    """Hours a month that people spend on it. Default 0."""
    per_ops_hour: _Amount = 0
    """What such an hour costs. Default 0."""
    other_per_month: _Amount = 0
    """Rent, hosting, training, labelling. Default 0."""
    instead_of: str | None = None
    """Model of the cloud whose price counts for what was answered at home. Default: the model that
    the client named."""

    def monthly_usd(self) -> dict[str, float]:
        """Dollars a month, by what they are for."""
        amounts = {
            "hardware": sum(h.count * h.price / h.life_months for h in self.hardware),
            "electricity": sum(map(self._kwh, self.hardware)) * self.per_kwh,
            "operation": self.ops_hours * self.per_ops_hour,
            "other": self.other_per_month,
        }
        return {name: amount * self.usd for name, amount in amounts.items()}

    def _kwh(self, of: Hardware) -> float:
        watts = of.watts * self.duty + of.idle_watts * (1 - self.duty)
        return of.count * watts * _HOURS / 1000 * self.pue
