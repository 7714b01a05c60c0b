"""The dashboard, as routes.yaml has it."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import msgspec


class DashboardSettings(msgspec.Struct, frozen=True, forbid_unknown_fields=True, kw_only=True):
    """The pages for operators at /dashboard."""

    enabled: bool = True
    """Whether there are any. Default true: they take an admin's key, as /metrics does."""
    runs: Path | None = None
    """Directory in which the trainer keeps its runs, `<domain>/<run>/manifest.json`. Default none:
    the page of runs says how to name one."""
    secret: str | None = None
    """What sessions are signed with, best as a reference: 16 characters or more. Default: derived
    from the record's own key; without a record, one that is made at each start. Give one where
    several machines serve the same pages."""
    session_hours: Annotated[float, msgspec.Meta(gt=0, le=168)] = 8
    """Hours after which one has to log in anew. Default 8: a working day."""
    cache_s: Annotated[float, msgspec.Meta(ge=0)] = 15
    """Seconds for which figures of the record are shown again without reading it. Default 15."""
    read_timeout_s: Annotated[float, msgspec.Meta(gt=0, le=300)] = 60
    """Seconds after which reading the record for a page is given up. Default 60: it takes one or
    two where the processor has time to spare, and requests have it first."""

    def __post_init__(self) -> None:
        if self.secret is not None and len(self.secret) < 16:
            raise ValueError("`secret` needs at least 16 characters: openssl rand -base64 32")
