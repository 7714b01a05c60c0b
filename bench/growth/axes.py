"""What is made larger, and what of it is measured."""

from __future__ import annotations

from typing import NamedTuple

import msgspec


class Column(NamedTuple):
    """One figure of each point."""

    title: str
    form: str
    is_cost: bool = True
    """Whether it is judged by how it grows; the others are only told."""


class Axis(NamedTuple):
    """One thing that is made larger while all else stays."""

    name: str
    about: str
    values: tuple[int, ...]
    quick: tuple[int, ...]
    columns: dict[str, Column]
    """Key of Point.values → what it is."""


class Point(msgspec.Struct):
    """What was measured at one place of an axis, in one round."""

    axis: str
    at: int
    values: dict[str, float] = {}
    errors: int = 0


_CPU = Column("CPU µs a request", ",.0f")
_THROUGH = Column("requests/s", ",.0f", is_cost=False)
_RESIDENT = Column("MiB resident", ",.0f")
_REQUEST = {"cpu_us": _CPU, "rps": _THROUGH}
_SETTINGS = {
    **_REQUEST,
    "rss_mib": _RESIDENT,
    "start_s": Column("CPU s to start", ".2f"),
    "idle_us": Column("CPU µs a second, idle", ",.0f"),
}

DOMAINS = Axis(
    "domains",
    "Domains of five tools each, four by name and one by glob; requests of each in turn, the worst"
    " case for all that is remembered",
    (1, 10, 100, 1000),
    (1, 1000),
    _SETTINGS,
)
TOOLS = Axis("tools", "Tools a request", (1, 20, 200), (1, 200), _REQUEST)
BODIES = Axis("KB", "Size of a request, text, one tool", (1, 10, 100, 1000), (1, 1000), _REQUEST)
STREAMS = Axis(
    "streams",
    "Streams at a time, five events a second each",
    (10, 100, 500, 2000),
    (10, 500),
    {
        "cores": Column("cores", ".3f"),
        "event_us": Column("CPU µs an event", ",.0f", is_cost=False),
        "late_p50_ms": Column("ms late at the end, p50", ",.0f", is_cost=False),
        "late_p99_ms": Column("p99", ",.0f", is_cost=False),
        "rss_mib": _RESIDENT,
    },
)
ADAPTERS = Axis(
    "adapters",
    "Adapters in the catalog, a domain for each; requests of each in turn",
    (1, 8, 64),
    (1, 64),
    _SETTINGS,
)
_ASKED = {
    "stats": "`record stats`",
    "ls": "`record ls --since 1d`",
    "ls_all": "`record ls`",
    "show": "`record show` of an old one",
    "traffic": "dashboard: figures of a day",
    "search": "dashboard: the last exchanges",
    "look": "dashboard: one exchange",
    "trainer": "trainer: a day of a domain",
    "ab": "`report ab`, four weeks of a domain",
}
RECORD = Axis(
    "exchanges",
    "Exchanges in the record, over 30 days and 10 domains, the last hundredth not compacted yet;"
    " every tenth has a shadow, every twentieth a demonstration",
    (10**4, 10**5, 10**6, 10**7),
    (10**4, 10**5),
    {f"{key}_s": Column(f"{title}: CPU s", ".2f") for key, title in _ASKED.items()}
    | {f"{key}_mib": Column(f"{title}: MiB at most", ",.0f") for key, title in _ASKED.items()},
)
REQUESTS = (DOMAINS, TOOLS, BODIES, STREAMS, ADAPTERS)
ALL = (*REQUESTS, RECORD)
