"""The sealed side of a dataset: opened once for each candidate, and only after it passed the rest.

A set that is asked again and again is learnt by whoever looks at its figures.
"""

from __future__ import annotations

from pathlib import Path

from trainer import dataset
from trainer.errors import GateError
from trainer.gate import Verdict
from trainer.rows import Row


def unseal(directory: Path, verdict: Verdict) -> list[Row]:
    """The sealed rows, for the candidate of a verdict; the dataset's ledger keeps the opening.

    Raises GateError for a candidate that did not pass the open sides of this very dataset, and
    DatasetError for one that has seen the sealed side before.
    """
    if verdict.decision != "promote" or verdict.sealed:
        raise GateError(f"{verdict.candidate} has not passed the open sides: {verdict.decision}")
    if verdict.dataset != dataset.read(directory).fingerprint:
        raise GateError("the verdict is about another dataset; evaluate on this one first")
    return dataset.unseal(directory, verdict.candidate)
