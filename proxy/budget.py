"""What was spent today, in US dollars, on a file: it outlives the process, however that ends.

One file in the record's directory for all domains, and for all proxies that write there: each reads
it anew under a lock, so that the budget holds for all of them together. The day is UTC's. The file
is replaced whole; one that cannot be read or written means that nothing more may be spent.
"""

from __future__ import annotations

import fcntl
import os
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from datetime import UTC, datetime
from pathlib import Path

import msgspec

_NAME = "shadow-budget.json"
_LOCK = "shadow-budget.lock"


class BudgetUnknown(Exception):
    """What was spent cannot be read or written; the message names the file and the remedy."""


class _Spent(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    day: str
    usd: dict[str, float] = {}


_decoder = msgspec.json.Decoder(_Spent)


class Budget:
    """The account of a directory. All methods block: call them in a thread."""

    def __init__(self, directory: Path, clock: Callable[[], float] = time.time) -> None:
        self._directory = directory
        self._clock = clock

    def spent(self, domain: str) -> float:
        """US dollars that a domain has spent today; raises BudgetUnknown."""
        with self._translated():
            return self._read().usd.get(domain, 0.0)

    def spend(self, domain: str, usd: float) -> float:
        """Add this, lasting on return; what the domain has spent today. Raises BudgetUnknown."""
        with self._translated(), self._locked():
            now = self._read()
            total = now.usd.get(domain, 0.0) + usd
            self._write(msgspec.structs.replace(now, usd={**now.usd, domain: total}))
            return total

    @property
    def _today(self) -> str:
        return datetime.fromtimestamp(self._clock(), UTC).date().isoformat()

    def _read(self) -> _Spent:
        try:
            kept = _decoder.decode((self._directory / _NAME).read_bytes())
        except FileNotFoundError:
            return _Spent(self._today)
        return kept if kept.day == self._today else _Spent(self._today)

    def _write(self, spent: _Spent) -> None:
        fresh = self._directory / f".{_NAME}"
        with fresh.open("wb") as file:
            file.write(msgspec.json.encode(spent))
            file.flush()
            os.fsync(file.fileno())
        fresh.replace(self._directory / _NAME)

    @contextmanager
    def _locked(self) -> Iterator[None]:
        self._directory.mkdir(mode=0o700, parents=True, exist_ok=True)
        lock = os.open(self._directory / _LOCK, os.O_WRONLY | os.O_CREAT | os.O_CLOEXEC, 0o600)
        try:
            fcntl.flock(lock, fcntl.LOCK_EX)
            yield
        finally:
            os.close(lock)

    @contextmanager
    def _translated(self) -> Iterator[None]:
        try:
            yield
        except OSError as error:
            raise BudgetUnknown(f"{self._directory / _NAME}: {error.strerror}") from error
        except ValueError as error:
            raise BudgetUnknown(
                f"{self._directory / _NAME}: not what Headrace writes; remove it to begin the day"
                " with nothing spent"
            ) from error
