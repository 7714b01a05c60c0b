"""The process that reads the record for one page: an Order on standard input, what was found, or a
Refusal, on standard output. It steps back for whoever answers requests."""

from __future__ import annotations

import os
import sys
from collections.abc import Sequence
from contextlib import suppress
from pathlib import Path
from typing import TYPE_CHECKING

import msgspec

from proxy.dashboard.questions import (
    Agreements,
    Found,
    Look,
    Order,
    Refusal,
    Savings,
    Search,
    SeenFound,
    Traffic,
    unpacked,
)
from proxy.errors import CannotStart
from proxy.protocol.sealing import SealError

if TYPE_CHECKING:
    import duckdb

    from proxy.record.shelf import Shelf

_DAY = 24 * 60 * 60
_NICE = 5
"""Chosen: a busy processor leaves it a quarter of what it leaves a request."""


def main() -> None:
    """Answer the order."""
    _step_back()
    order = unpacked(sys.stdin.buffer.read())
    sys.stdout.buffer.write(msgspec.json.encode(answer(order)))


def _step_back() -> None:
    """Requests come first, for the processor, and when memory is short."""
    os.nice(_NICE)
    with suppress(OSError):
        Path("/proc/self/oom_score_adj").write_text("1000")


def answer(order: Order) -> Found | Refusal:
    """What the record says, or why it cannot."""
    try:
        return _found(order)
    except ImportError as error:
        return Refusal(
            kind="extra",
            told=f"This needs the package {error.name!r}, which is not installed;"
            " run: pip install 'headrace[dashboard]'",
        )
    except (CannotStart, SealError, OSError) as error:
        return Refusal(kind="record", told=str(error))


def _found(order: Order) -> Found:
    from proxy.record import query
    from proxy.record.archive import open_archive
    from proxy.record.keys import keyring
    from proxy.record.shelf import Shelf

    record, question = order.record, order.question
    shelf = Shelf(record.directory, open_archive(record), keyring(record))
    if isinstance(question, Look):
        return _looked_at(shelf, question, order.local)
    with query.opened(shelf, question.span.since) as connection:
        return _asked(connection, shelf, order, question)


def _looked_at(shelf: Shelf, wanted: Look, local: Sequence[str]) -> SeenFound:
    """One exchange, and what was said of it, or the day before of its conversation."""
    exchange = shelf.find(wanted.id, wanted.tenant)
    if exchange is None:
        return SeenFound(seen=None)
    from proxy.dashboard.conversations import look
    from proxy.record import query

    with query.opened(shelf, exchange.started_at - _DAY) as connection:
        return look(connection, shelf.rows, exchange, local)


def _asked(
    connection: duckdb.DuckDBPyConnection,
    shelf: Shelf,
    order: Order,
    question: Traffic | Savings | Agreements | Search,
) -> Found:
    """Imports what the question takes, and no more: that is most of the time."""
    match question:
        case Traffic(span=span):
            from proxy.dashboard.traffic import traffic

            return traffic(connection, span)
        case Savings(span=span):
            from proxy.dashboard.proof import savings

            return savings(connection, span, order)
        case Agreements(span=span):
            from proxy.dashboard.proof import agreements

            return agreements(connection, shelf.rows, span, order.local)
        case Search() as search:
            from proxy.dashboard.conversations import search as found

            return found(connection, shelf.rows, search)


if __name__ == "__main__":
    main()
