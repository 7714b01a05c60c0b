"""Where rows come from: one file a source, each read by its settings in the recipe."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from typing import Any

from trainer.recipe.sources import SourceSettings
from trainer.rows import Row
from trainer.sources.base import Skips, Source
from trainer.sources.bfcl import BfclSource

SOURCES: dict[str, Callable[[Any, Skips], Source]] = {
    "bfcl": BfclSource,
}
"""Kind → the source's class."""


def open_source(settings: SourceSettings, skips: Skips) -> Source:
    """The source that these settings are for."""
    return SOURCES[str(settings.__struct_config__.tag)](settings, skips)


def rows(sources: Iterable[SourceSettings], skips: Skips) -> Iterator[Row]:
    """The rows of several sources, one source after the other."""
    for settings in sources:
        yield from open_source(settings, skips).rows()
