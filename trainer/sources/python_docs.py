"""Documentation of Python libraries: sites that Sphinx made, docstrings of installed packages."""

from __future__ import annotations

from collections.abc import Iterator

from proxy.protocol.places import place
from trainer.errors import SourceError
from trainer.recipe.sources import PythonDocsSettings
from trainer.rows import Row
from trainer.sources.base import Skips


class PythonDocsSource:
    """What each documented thing is, its parameters and examples; and chapters with code."""

    def __init__(self, settings: PythonDocsSettings, skips: Skips) -> None:
        self._settings = settings
        self._skips = skips

    def rows(self) -> Iterator[Row]:
        try:
            from trainer.sources.docstrings import Package
            from trainer.sources.sphinx import Site
        except ImportError as error:
            raise SourceError(
                f"the python_docs source needs the package {error.name!r};"
                " run: pip install 'headrace[docs]'"
            ) from error
        for folder in self._settings.sites:
            yield from Site(place(folder), self._settings, self._skips).rows()
        for name in self._settings.packages:
            yield from Package(name, self._settings).rows()
