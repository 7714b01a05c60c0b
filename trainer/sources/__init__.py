"""Where rows come from: one file a source, each read by its settings in the recipe."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from typing import Any

from trainer.recipe.sources import SourceSettings
from trainer.rows import Row
from trainer.sources.base import Skips, Source
from trainer.sources.bfcl import BfclSource
from trainer.sources.exchanges import ExchangesSource
from trainer.sources.github import GithubSource
from trainer.sources.jsonl import JsonlSource
from trainer.sources.python_docs import PythonDocsSource
from trainer.sources.stackexchange import StackExchangeSource

SOURCES: dict[str, Callable[[Any, Skips], Source]] = {
    "bfcl": BfclSource,
    "exchanges": ExchangesSource,
    "github": GithubSource,
    "jsonl": JsonlSource,
    "python_docs": PythonDocsSource,
    "stackexchange": StackExchangeSource,
}
"""Kind → the source's class."""


def open_source(settings: SourceSettings, skips: Skips) -> Source:
    """The source that these settings are for."""
    return SOURCES[str(settings.__struct_config__.tag)](settings, skips)


def rows(sources: Iterable[SourceSettings], skips: Skips) -> Iterator[Row]:
    """The rows of several sources, one source after the other."""
    for settings in sources:
        yield from open_source(settings, skips).rows()
