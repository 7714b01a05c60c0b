"""Files of rows in any of `trainer.formats`, plain or packed."""

from __future__ import annotations

from collections.abc import Iterator

from msgspec.structs import replace

from trainer.conversation import expanded, fault
from trainer.formats import FORMATS
from trainer.formats.base import BadRow
from trainer.recipe.sources import JsonlSettings
from trainer.rows import Row
from trainer.schemas import check_schemas
from trainer.sources import files
from trainer.sources.base import Skips
from trainer.sources.files import Line


class JsonlSource:
    """The rows of files; of a conversation one for each answer."""

    def __init__(self, settings: JsonlSettings, skips: Skips) -> None:
        self._settings = settings
        self._skips = skips
        self._format = FORMATS[settings.format]

    def rows(self) -> Iterator[Row]:
        for path in files.find(self._settings.paths):
            for line in files.read(path, self._skips):
                yield from self._rows(line)

    def _rows(self, line: Line) -> list[Row]:
        try:
            row = self._format.read(line.content)
            broken = fault(row)
            if broken is not None:
                raise BadRow(broken)
            check_schemas(row.functions)
        except BadRow as error:
            self._skips.add(line.place, error.reason, str(error))
            return []
        return expanded(self._named(row, line), self._settings.per_conversation)

    def _named(self, row: Row, line: Line) -> Row:
        """What the file cannot tell is the recipe's; our own rows tell."""
        given = self._settings
        return replace(
            row,
            source=row.source or f"jsonl:{line.place}",
            license=row.license or given.license,
            tenant=given.tenant or row.tenant,
        )
