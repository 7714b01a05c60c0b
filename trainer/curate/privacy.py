"""The filter that keeps secrets and personal data out of weights.

The recognisers are those that guard the record (proxy.protocol.recognise). Where a value is
replaced, the same one gets the same name all through the row, `<email:00000001>`, so that a call's
arguments still match the text that they were taken from. The names count from one in every row:
without a key there is nothing to guess, and every run names alike.
"""

from __future__ import annotations

from typing import Any, ClassVar

import msgspec

from proxy.protocol.openai import FunctionCall, Message
from proxy.protocol.redact import Redactor
from trainer.curate.filter import Drop
from trainer.recipe import Recipe
from trainer.recipe.curation import PrivacySettings
from trainer.rows import Row


class Privacy:
    """Drops or redacts, secrets and personal data each as the recipe says."""

    version: ClassVar[int] = 1

    def __init__(self, settings: PrivacySettings, recipe: Recipe) -> None:
        self._settings = settings
        self._redactor = Redactor(b"", personal=settings.kinds)

    def __call__(self, row: Row) -> Row | Drop:
        names = _Numbered(self._settings)
        said = _said(row)
        cleaned = self._redactor.renamed(said, names)
        if names.dropped:
            reason = "secret" if "secret" in names.dropped else "personal_data"
            return Drop(reason, ", ".join(sorted(names.dropped)))
        return row if cleaned == said else _with(row, cleaned)


def redacted(text: str) -> str:
    """A text without secrets and personal data."""
    everything = PrivacySettings(secrets="redact", personal="redact")
    cleaned = Redactor(b"").renamed([text], _Numbered(everything))
    assert isinstance(cleaned, list)
    return str(cleaned[0])


class _Numbered:
    """Names that count the values of one row; what is to be kept keeps its own."""

    def __init__(self, settings: PrivacySettings) -> None:
        self._settings = settings
        self._numbers: dict[tuple[str, str], int] = {}
        self.dropped: set[str] = set()
        """Kinds that were found and that rows must not have."""

    def name(self, kind: str, value: str) -> str:
        action = self._settings.secrets if kind == "secret" else self._settings.personal
        if action == "keep":
            return value
        if action == "drop":
            self.dropped.add(kind)
        plain = "".join(filter(str.isalnum, value)).casefold() or value
        number = self._numbers.setdefault((kind, plain), len(self._numbers) + 1)
        return f"<{kind}:{number:08x}>"


def _said(row: Row) -> Any:
    """All that somebody said in a row, as plain values; the tools' schemas are nobody's data."""
    said = (row.messages, [[c.name, c.arguments] for c in row.calls], row.text, row.accepted)
    return msgspec.json.decode(msgspec.json.encode(said))


def _with(row: Row, said: Any) -> Row:
    """The row that says `said`."""
    messages, calls, text, accepted = said
    return msgspec.structs.replace(
        row,
        messages=msgspec.convert(messages, list[Message]),
        calls=[FunctionCall(name, arguments) for name, arguments in calls],
        text=text,
        accepted=[
            {name: msgspec.Raw(msgspec.json.encode(values)) for name, values in one.items()}
            for one in accepted
        ],
    )
