"""What the client has seen decides who may still answer. Knows no network.

    uncommitted ──text──▶ text ──calls──▶ sealed ──end──▶ done
         └────────────calls─────────▶┘
         └──────────────────a cloud's bytes────────────▶┘

Nothing seen: the next backend may answer when one fails. Text seen, and then an invalid or unsure
call: the next one may add its calls, nothing else. Calls or a cloud's bytes seen: nobody else may
add to it.
"""

from __future__ import annotations

from typing import Literal, TypeAlias

from proxy.backends.base import Call, Event, Finish, Text
from proxy.errors import BackendError, InvalidAnswer, LowConfidence

State: TypeAlias = Literal["uncommitted", "text", "sealed", "done"]


class Commitment:
    """How far one answer is committed to what the client has seen of it."""

    def __init__(self) -> None:
        self.state: State = "uncommitted"

    def sent(self, event: Event) -> None:
        """The client has been sent a generated event."""
        match event:
            case Text():
                self.state = "text" if self.state == "uncommitted" else self.state
            case Call():
                self.state = "sealed"
            case Finish():
                self.state = "done"

    def relayed(self) -> None:
        """The client has been sent a cloud's bytes, which end as they end."""
        self.state = "done"

    def lets_follow(self, error: BackendError, is_late: bool = False) -> bool:
        """Whether another attempt may go on after this failure; `is_late`: of an attempt that could
        only have added its calls to another one's text, and has sent nothing."""
        if self.state == "text":
            return is_late or isinstance(error, InvalidAnswer | LowConfidence)
        return self.state == "uncommitted"
