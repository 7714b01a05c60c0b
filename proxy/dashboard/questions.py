"""What a page can ask of the record, and what it gets: JSON between two processes."""

from __future__ import annotations

from typing import Literal, TypeAlias

import msgspec

from proxy.protocol.hardware import CostSettings
from proxy.record.settings import RecordSettings

SLOTS = 48
"""Points of a course of time."""
FOUND = 50
"""Exchanges on a page of a search."""
PAIRS = 20_000
"""Pairs that are compared for one page, at most."""
DOMAINS = 12
"""Domains whose agreement is shown: those with most pairs."""
LONGEST = 20_000
"""Letters of one text that are shown; what follows is in the record."""


class Span(msgspec.Struct, frozen=True, kw_only=True):
    """A time, in seconds since the epoch: `since` belongs to it, `until` does not."""

    since: float
    until: float


# ---------------------------------------------------------------- traffic


class Traffic(msgspec.Struct, frozen=True, kw_only=True, tag=True):
    """Asks: what was answered by whom, and how fast."""

    span: Span


class Course(msgspec.Struct, frozen=True, kw_only=True):
    """One line of a chart."""

    name: str
    values: list[float | None]
    """One for each of `at`; None where there is nothing to tell."""
    lows: list[float | None] = []
    highs: list[float | None] = []
    """The interval of each value, where it has one."""
    counts: list[int] = []
    """What each value rests on, where that matters."""


class Chart(msgspec.Struct, frozen=True, kw_only=True):
    """Lines over the same times."""

    at: list[float]
    """Seconds since the epoch: the beginning of each slot."""
    lines: list[Course]


class Share(msgspec.Struct, frozen=True, kw_only=True):
    """What one backend answered of a domain."""

    domain: str
    backend: str
    requests: int
    completed: float
    """Share, 0 to 1."""
    first_byte_p50_s: float | None
    total_p50_s: float
    total_p95_s: float
    cost_usd: float | None
    """None where no price is known."""


class Fallback(msgspec.Struct, frozen=True, kw_only=True):
    """Requests that another backend than the first one asked had to answer, by why."""

    domain: str
    backend: str
    """That was asked first."""
    reason: str
    requests: int


class TrafficFound(msgspec.Struct, frozen=True, kw_only=True):
    chart: Chart
    """Requests by backend."""
    shares: list[Share]
    fallbacks: list[Fallback]


# ---------------------------------------------------------------- money


class Savings(msgspec.Struct, frozen=True, kw_only=True, tag=True):
    """Asks: what answering at home saved."""

    span: Span


class Money(msgspec.Struct, frozen=True, kw_only=True):
    """What was saved, in dollars."""

    sentence: str
    saved: float
    low: float
    high: float
    is_known: bool
    """Whether routes.yaml says what own hardware costs; without it, `saved` leaves that out."""


class SavingsFound(msgspec.Struct, frozen=True, kw_only=True):
    money: Money | None
    """None where nothing was answered at home."""


# ---------------------------------------------------------------- agreement


class Agreements(msgspec.Struct, frozen=True, kw_only=True, tag=True):
    """Asks: how often home and the cloud say the same, over time."""

    span: Span


class Agreed(msgspec.Struct, frozen=True, kw_only=True):
    """The agreement of one domain."""

    domain: str
    candidate: str
    baseline: str
    pairs: int
    conversations: int
    value: float | None
    low: float
    high: float
    """95 % Wilson interval; conversations count for what they are worth."""
    kinds: dict[str, int]
    chart: Chart


class AgreementsFound(msgspec.Struct, frozen=True, kw_only=True):
    domains: list[Agreed]
    is_cut: bool
    """Whether there were more pairs than are compared for a page."""


# ---------------------------------------------------------------- exchanges


class Search(msgspec.Struct, frozen=True, kw_only=True, tag=True):
    """Asks: the last exchanges that fit. An empty text fits all."""

    span: Span
    text: str = ""
    """Found anywhere in the exchange, whatever the case; encrypted ones are found by id only."""
    domain: str = ""
    backend: str = ""
    tenant: str = ""
    outcome: str = ""
    page: int = 0


class Row(msgspec.Struct, frozen=True, kw_only=True):
    """One exchange of a list."""

    id: str
    started_at: float
    tenant: str
    domain: str
    backend: str
    adapter: str
    outcome: str
    total_s: float
    attempts: int
    is_shadowed: bool
    judgements: int
    question: str
    """The last thing that the user said, cut."""


class SearchFound(msgspec.Struct, frozen=True, kw_only=True):
    rows: list[Row]
    has_more: bool


class Look(msgspec.Struct, frozen=True, kw_only=True, tag=True):
    """Asks: all that is known of one exchange."""

    id: str
    tenant: str


class Said(msgspec.Struct, frozen=True, kw_only=True):
    """One message of the conversation."""

    role: str
    text: str


class Call(msgspec.Struct, frozen=True, kw_only=True):
    """One tool call."""

    name: str
    arguments: str
    """JSON, indented where it is any."""


class Side(msgspec.Struct, frozen=True, kw_only=True):
    """What one backend answered."""

    backend: str
    adapter: str
    is_local: bool
    is_shadow: bool
    """Whether the client has not seen it."""
    outcome: str
    reason: str
    text: str
    calls: list[Call]
    first_byte_s: float | None
    total_s: float
    cost_usd: float | None
    tokens: int | None


class Judgement(msgspec.Struct, frozen=True, kw_only=True):
    """What somebody said of it."""

    given_at: float
    caller: str
    kind: str
    told: str


class Seen(msgspec.Struct, frozen=True, kw_only=True):
    """One exchange, with its shadows and what was said of it."""

    id: str
    request_id: str
    tenant: str
    caller: str
    domain: str
    model: str
    conversation: str
    started_at: float
    total_s: float
    outcome: str
    status: int
    is_kept: bool
    """Whether what was said is kept, and not only that something was."""
    messages: list[Said]
    tools: list[str]
    tools_json: str
    """The request's tools, JSON; empty where they are too long."""
    sides: list[Side]
    agreement: str
    """How local and cloud compare: a kind of protocol.agreement, empty where there is one side."""
    judgements: list[Judgement]


class SeenFound(msgspec.Struct, frozen=True, kw_only=True):
    seen: Seen | None


# ---------------------------------------------------------------- how they are sent


Question: TypeAlias = Traffic | Savings | Agreements | Search | Look
Found: TypeAlias = TrafficFound | SavingsFound | AgreementsFound | SearchFound | SeenFound


class Order(msgspec.Struct, frozen=True, kw_only=True):
    """A question, and where the record is."""

    question: Question
    record: RecordSettings
    costs: CostSettings | None
    local: list[str]
    """Backends that are at home."""


def packed(order: Order) -> bytes:
    """The order as JSON."""
    return msgspec.json.encode(order, enc_hook=str)


def unpacked(content: bytes) -> Order:
    """The order that was packed."""
    return msgspec.json.decode(content, type=Order, dec_hook=lambda kind, value: kind(value))


class Refusal(msgspec.Struct, frozen=True, kw_only=True):
    """Why there is no answer, for people; `extra`: a package is missing."""

    kind: Literal["extra", "record"]
    told: str
