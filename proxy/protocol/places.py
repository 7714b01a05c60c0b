"""Paths that settings name."""

from __future__ import annotations

import os.path
from pathlib import Path


def place(written: str | Path, directory: Path = Path()) -> Path:
    """The path, which starts at `directory` where it is relative. `~` and `~name` are users' homes;
    that of a user whom nobody knows stays as it is, and is told as a file that is not there."""
    # Path's own raises RuntimeError.
    return directory / os.path.expanduser(written)
