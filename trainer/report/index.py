"""All evaluations below a directory on one page, the newest first."""

from __future__ import annotations

from pathlib import Path
from typing import NamedTuple

import msgspec

from proxy.protocol.page.frame import page
from trainer.errors import TrainerError
from trainer.report.evaluation import Twin

NAME = "index.html"


class Entry(NamedTuple):
    """One report, and where it lies from the index."""

    link: str
    twin: Twin


def entries(directory: Path) -> list[Entry]:
    """The reports below a directory, newest first; raises TrainerError where there are none."""
    found = [_entry(path, directory) for path in directory.rglob("report.json")]
    read = [one for one in found if one is not None]
    if not read:
        raise TrainerError(
            f"{directory} holds no report; `headrace-trainer report show` makes them"
        )
    return sorted(read, key=lambda entry: entry.twin.verdict.at, reverse=True)


def write(directory: Path) -> Path:
    """The index in a directory; returns its path."""
    found = entries(directory)
    path = directory / NAME
    if any(entry.link == NAME for entry in found):
        raise TrainerError(f"{path} is a report itself; name the directory above it")
    count = f"{len(found)} report{'s' if len(found) > 1 else ''}"
    html = page(
        "trainer.report", "index.html.jinja", title="Evaluations", subtitle=count, entries=found
    )
    path.write_text(html, encoding="utf-8")
    return path


def _entry(path: Path, directory: Path) -> Entry | None:
    """None for a file of that name which is none of ours."""
    try:
        twin = msgspec.json.decode(path.read_bytes(), type=Twin)
    except (OSError, msgspec.MsgspecError, UnicodeDecodeError):
        return None
    return Entry(path.parent.relative_to(directory).joinpath(NAME).as_posix(), twin)
