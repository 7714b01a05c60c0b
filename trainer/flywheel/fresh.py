"""How much there is to learn that no run has seen: clean rows that are new.

Clean: every filter of single rows lets it pass. New: no row like it, content for content, was read
by the last run that got as far as a dataset. Rows, and not exchanges, are counted: an answer that
somebody corrected since is a new row.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator
from typing import NamedTuple

import msgspec

from proxy.protocol.adapter import AdapterError
from trainer import dataset, sources
from trainer.curate.chain import Judge, Plan
from trainer.curate.execute import batched
from trainer.errors import DatasetError
from trainer.flywheel import state, tools
from trainer.flywheel.settings import Domain
from trainer.flywheel.state import Run
from trainer.pipeline import erased
from trainer.rows import Row
from trainer.sources.base import Skips


class Fresh(NamedTuple):
    """What is new in a domain."""

    rows: int
    drifted: int
    """Of these, the rows that offer a tool by a schema which neither the champion was trained with
    nor the last run read; 0 where there was neither."""
    tools: list[str]
    """Those tools, the most frequent first."""


def look(domain: Domain) -> Fresh:
    """Count the domain's new clean rows."""
    judge, known = Judge(Plan(domain.recipe, None)), _known(domain)
    count, drifted, changed = 0, 0, Counter[str]()
    for batch in batched(_new(domain)):
        for one in judge(batch):
            if one.sketch is None:
                continue
            count += 1
            row = msgspec.json.decode(one.row, type=Row)
            strange = [name for name, hashed in tools.offered(row).items() if hashed not in known]
            if known and strange:
                drifted += 1
                changed.update(strange)
    return Fresh(count, drifted, [name for name, _ in changed.most_common()])


def _new(domain: Domain) -> Iterator[Row]:
    """Rows that were not read before, each once."""
    gone, seen = erased(domain.recipe), _read_before(domain)
    for row in sources.rows(domain.recipe.sources, Skips()):
        if row.id not in seen and row.exchange not in gone:
            seen.add(row.id)
            yield row


def _last(domain: Domain) -> Run | None:
    """The last run with a dataset."""
    found = [run for run in state.runs(domain.runs) if run.manifest.step("dataset").state == "done"]
    return found[-1] if found else None


def _read_before(domain: Domain) -> set[str]:
    """Ids of the rows that it read."""
    last = _last(domain)
    try:
        return {fate.row for fate in dataset.fates(last.directory / "dataset")} if last else set()
    except DatasetError:
        # Somebody tidied up: then all that is there counts as new.
        return set()


def _known(domain: Domain) -> set[str]:
    """Fingerprints of the schemas that the champion or the last run knows."""
    last = _last(domain)
    read = tools.read(last.directory / "rows" / "tools.json") if last else {}
    return {hashed for hashes in read.values() for hashed in hashes} | _trained(domain)


def _trained(domain: Domain) -> set[str]:
    champion = domain.alias.champion
    if champion is None:
        return set()
    try:
        return set(domain.registry.manifest(champion).tool_fingerprints.values())
    except AdapterError:
        # A champion whose bundle is gone is the proxy's trouble; here it knows nothing.
        return set()
