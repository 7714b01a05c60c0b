"""What had a say in a dataset beside its recipe: this code, and libraries."""

from __future__ import annotations

import functools
import hashlib
import platform
from importlib import metadata
from pathlib import Path

from trainer.recipe import Recipe
from trainer.sandbox import Limits, Sandbox

_LIBRARIES = (
    "headrace",
    "jsonschema-rs",
    "msgspec",
    "numpy",
    "py3langid",
    "rensa",
    "ruff",
    "scipy",
)
_CODE = ("curate", "sources", "sandbox", "dataset.py", "rows.py")


def versions(recipe: Recipe) -> dict[str, str]:
    """Name → version. `curation` is a hash of the code that made the dataset."""
    runs = recipe.filters.code_runs
    named = (*_LIBRARIES, *(runs.preload if runs is not None else ()))
    found = {name: version for name in named if (version := _installed(name)) is not None}
    return {"curation": _code(), "python": platform.python_version(), **found}


def isolation(recipe: Recipe) -> str:
    """What holds the code that the recipe has run, in words; empty where it has none run."""
    if recipe.filters.code_runs is None:
        return ""
    sandbox = Sandbox(Limits())
    try:
        return sandbox.isolation
    finally:
        sandbox.close()


def _installed(name: str) -> str | None:
    try:
        return metadata.version(name)
    except metadata.PackageNotFoundError:
        return None


@functools.cache
def _code() -> str:
    here = Path(__file__).parents[1]
    whole = hashlib.sha256()
    for name in _CODE:
        for path in sorted([here / name] if name.endswith(".py") else (here / name).rglob("*.py")):
            whole.update(path.read_bytes())
    return f"sha256:{whole.hexdigest()[:16]}"
