"""How much there is to learn that no run has seen: clean rows that are new.

Clean: every filter of single rows lets it pass. New: no row like it, content for content, was read
by the last run that got as far as a dataset. Rows, and not exchanges, are counted: an answer that
somebody corrected since is a new row.
"""

from __future__ import annotations

from collections.abc import Iterator

from trainer import dataset, sources
from trainer.curate.chain import Judge, Plan
from trainer.curate.execute import batched
from trainer.errors import DatasetError
from trainer.flywheel import state
from trainer.flywheel.settings import Domain
from trainer.flywheel.state import Run
from trainer.pipeline import erased
from trainer.rows import Row
from trainer.sources.base import Skips


def new_rows(domain: Domain) -> int:
    """Clean rows of the domain's sources that are new."""
    judge = Judge(Plan(domain.recipe, None))
    batches = batched(_new(domain))
    return sum(one.sketch is not None for batch in batches for one in judge(batch))


def _new(domain: Domain) -> Iterator[Row]:
    """Rows that were not read before, each once."""
    gone, seen = erased(domain.recipe), _read_before(domain)
    for row in sources.rows(domain.recipe.sources, Skips()):
        if row.id not in seen and row.exchange not in gone:
            seen.add(row.id)
            yield row


def _read_before(domain: Domain) -> set[str]:
    """Ids of the rows that the last run with a dataset read."""
    for run in reversed(list(state.runs(domain.runs))):
        if run.manifest.step("dataset").state == "done":
            return _ids(run)
    return set()


def _ids(run: Run) -> set[str]:
    try:
        return {fate.row for fate in dataset.fates(run.directory / "dataset")}
    except DatasetError:
        # Somebody tidied up: then all that is there counts as new.
        return set()
