"""The sealed side of a dataset: opened once for each candidate, and only after it passed the rest.

A set that is asked again and again is learnt by whoever looks at its figures. The ledger lies
beside the dataset and is only ever appended to: a line is written before the first row is read.
"""

from __future__ import annotations

import datetime
from pathlib import Path

import msgspec

from trainer.errors import GateError
from trainer.gate import Verdict

LEDGER = "sealed-ledger.jsonl"


class Opening(msgspec.Struct, frozen=True, kw_only=True):
    """Once the sealed side was opened."""

    candidate: str
    dataset: str
    at: str


def openings(directory: Path) -> list[Opening]:
    """All openings so far, oldest first; raises GateError for a ledger that cannot be read."""
    path = directory / LEDGER
    try:
        lines = path.read_bytes().splitlines() if path.exists() else []
        return [msgspec.json.decode(line, type=Opening) for line in lines]
    except (OSError, msgspec.MsgspecError, UnicodeDecodeError) as error:
        raise GateError(
            f"{path}: {error}; without its ledger the sealed side is not opened"
        ) from error


def unseal(directory: Path, dataset: str, verdict: Verdict) -> Opening:
    """Enter the opening for a candidate into the ledger.

    Raises GateError for a candidate that did not pass, or that has seen the sealed side before.
    """
    if verdict.decision != "promote" or verdict.sealed:
        raise GateError(f"{verdict.candidate} has not passed the open sides: {verdict.decision}")
    if verdict.dataset != dataset:
        raise GateError("the verdict is about another dataset; evaluate on this one first")
    for before in openings(directory):
        if (before.candidate, before.dataset) == (verdict.candidate, dataset):
            raise GateError(f"the sealed side was opened for {before.candidate} at {before.at}")
    at = datetime.datetime.now(datetime.UTC).isoformat(timespec="seconds")
    opening = Opening(candidate=verdict.candidate, dataset=dataset, at=at)
    with (directory / LEDGER).open("ab") as ledger:
        ledger.write(msgspec.json.encode(opening) + b"\n")
    return opening
