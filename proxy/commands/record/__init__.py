"""headrace record: what was recorded, listed, searched, exported, compacted, judged, erased.

`ls`, `show` and `tail` of segments need nothing more; all else is the extra `record`.
"""

from __future__ import annotations

from proxy.commands.record import judging, listing, searching, upkeep
from proxy.commands.shared import Commands


def add(commands: Commands) -> None:
    """Add `record` and its commands to a command line."""
    record = commands.add_parser("record", help="read, compact, judge, erase what was recorded")
    reading = record.add_subparsers(required=True, metavar="command")
    for group in (listing, searching, upkeep, judging):
        group.add(reading)
