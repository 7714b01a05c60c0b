"""Models on disk: the base and some adapters, put together once and kept in the cache.

A model's directory is named after what went into it. All that is here blocks: call it in a thread.
"""

from __future__ import annotations

import fcntl
import functools
import hashlib
import os
import shutil
import subprocess
import sys
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, suppress
from pathlib import Path

import msgspec

import proxy
from proxy.backends.embedded import weights
from proxy.backends.embedded.pipeline import EngineFailed

VERSION = 2
"""Raise it when graph.py writes another model: cached ones of other versions are not used."""

_GRAPH = "proxy.backends.embedded.graph"
_REFUSED = 3
"""Its exit status for weights that cannot be used."""
_VOUCHED = "whole.json"


class Written(msgspec.Struct, frozen=True):
    """A file of a model: how to know that it is whole."""

    size: int
    sha256: str


class ModelFiles:
    """The directory of models."""

    def __init__(self, base: Path, directory: Path, most: int) -> None:
        """`most` models are kept."""
        self._base = base
        self._directory = directory
        self._most = most

    def find_or_make(self, adapters: Sequence[Path]) -> Path:
        """The model of the base and these adapters, whole; made when it is missing or damaged.

        One process makes it, others that want it at the same time wait.
        """
        self._directory.mkdir(parents=True, exist_ok=True)
        target = self._directory / self._digest(adapters)
        with _locked(self._directory / f"{target.name}.lock"):
            if not _is_whole(target):
                shutil.rmtree(target, ignore_errors=True)
                _make(self._base, adapters, target)
        os.utime(target)
        self._prune()
        return target

    def _digest(self, adapters: Sequence[Path]) -> str:
        """Name of everything that decides the model."""
        parts = [str(VERSION), self._base_sha256]
        for adapter in adapters:
            parts += [
                _sha256(adapter / weights.CONFIG_NAME),
                _sha256(adapter / weights.WEIGHTS_NAME),
            ]
        return hashlib.sha256(" ".join(parts).encode()).hexdigest()

    @functools.cached_property
    def _base_sha256(self) -> str:
        return _sha256(self._base)

    def _prune(self) -> None:
        """Remove the models not used for longest; a worker that has loaded one keeps it."""
        with suppress(FileNotFoundError):  # another process was faster
            models = [path for path in self._directory.iterdir() if (path / _VOUCHED).is_file()]
            models.sort(key=lambda path: path.stat().st_mtime)
            for path in models[: -self._most]:
                shutil.rmtree(path, ignore_errors=True)
                (self._directory / f"{path.name}.lock").unlink(missing_ok=True)


def _make(base: Path, adapters: Sequence[Path], target: Path) -> None:
    """graph.write in a process of its own, into a directory that appears whole or not at all.

    In a thread of this one its linear algebra would run while workers are started: BLAS's fork
    handlers then wait for each other, and the proxy stands still for ever (docs/LOG.md).
    """
    staged = target.with_name(f".{target.name}.{os.getpid()}.tmp")
    staged.mkdir()
    try:
        _written(base, adapters, staged)
        (staged / _VOUCHED).write_bytes(msgspec.json.encode(_vouched(staged)))
        staged.replace(target)
    finally:
        shutil.rmtree(staged, ignore_errors=True)


def _written(base: Path, adapters: Sequence[Path], directory: Path) -> None:
    root = str(Path(proxy.__file__).parents[1])
    paths = os.pathsep.join(filter(None, [root, os.environ.get("PYTHONPATH")]))
    ended = subprocess.run(  # noqa: S603  # our own interpreter and module
        [sys.executable, "-m", _GRAPH, base, directory, *adapters],
        env=os.environ | {"PYTHONPATH": paths},
        capture_output=True,
        text=True,
        check=False,
    )
    if ended.returncode == _REFUSED:
        raise weights.WeightsError(ended.stderr.strip())
    if ended.returncode:
        names = ", ".join(map(str, adapters)) or "no adapter"
        raise EngineFailed(f"no model of {base} and {names}: {ended.stderr[-500:]}")


def _sha256(path: Path) -> str:
    try:
        with path.open("rb") as file:
            return hashlib.file_digest(file, "sha256").hexdigest()
    except OSError as error:
        raise weights.WeightsError(f"{path}: {error.strerror}") from error


def _vouched(directory: Path) -> dict[str, Written]:
    files = [path for path in sorted(directory.iterdir()) if path.name != _VOUCHED]
    return {path.name: Written(path.stat().st_size, _sha256(path)) for path in files}


def _is_whole(directory: Path) -> bool:
    try:
        content = (directory / _VOUCHED).read_bytes()
        return msgspec.json.decode(content, type=dict[str, Written]) == _vouched(directory)
    except (OSError, msgspec.MsgspecError, weights.WeightsError):
        return False


@contextmanager
def _locked(path: Path) -> Iterator[None]:
    """Hold a lock between processes; it ends with the process, however that ends."""
    with path.open("w") as file:
        fcntl.flock(file, fcntl.LOCK_EX)
        yield
