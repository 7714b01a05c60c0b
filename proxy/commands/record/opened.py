"""The record that routes.yaml names, opened for a command."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING

from proxy import config
from proxy.errors import BadConfig, CannotStart
from proxy.protocol.exchange import NewerRecord
from proxy.protocol.sealing import SealError
from proxy.record.keys import keyring, missing
from proxy.record.settings import RecordSettings

if TYPE_CHECKING:
    from proxy.record.shelf import Shelf

ONE_OBJECT = "print what was done as JSON"
"""Help of `--json` where one thing is done."""


def settings_of(path: Path) -> RecordSettings:
    """What routes.yaml says of the record; raises BadConfig where it says nothing."""
    found = config.load(path).record
    if found is None:
        raise BadConfig(f"{path}: nothing is recorded, as there is no `record` section")
    return found


def shelf_of(settings: RecordSettings) -> Shelf:
    """Segments and archive, for reading; raises MissingExtra."""
    with extra():
        from proxy.record.archive import open_archive
        from proxy.record.shelf import Shelf
    return Shelf(settings.directory, open_archive(settings), keyring(settings))


@contextmanager
def extra() -> Iterator[None]:
    """Imports of what only the extra `record` has; raises MissingExtra."""
    try:
        yield
    except ImportError as error:
        raise missing("headrace record", error) from error


@contextmanager
def errors_told() -> Iterator[None]:
    """What went wrong, on one line."""
    try:
        yield
    except BrokenPipeError:
        raise
    except OSError as error:
        named = error.filename is not None and error.strerror
        raise CannotStart(f"{error.filename}: {named}" if named else str(error)) from error
    except (SealError, NewerRecord) as error:
        raise CannotStart(str(error)) from error
