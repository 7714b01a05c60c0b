"""What a run tells as it goes: a progress bar, JSON lines, and TensorBoard where installed."""

from __future__ import annotations

import importlib.util
import resource
import time
from pathlib import Path
from types import TracebackType
from typing import Any

import msgspec
import torch
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn

METRICS = "metrics.jsonl"


class Line(msgspec.Struct, frozen=True, kw_only=True, omit_defaults=True):
    """One step, as metrics.jsonl has it."""

    step: int
    loss: float
    """Mean cross-entropy over the step's supervised tokens, in nats."""
    tokens: int
    """Padding included."""
    tok_s: float
    rate: float
    """Learning rate."""
    memory_bytes: int
    """The most that was in use so far: the GPU's, or the process's own."""
    call_exact: float | None = None
    """Share of the validation rows that were answered right, where they were asked."""
    false_calls: int | None = None
    validation_loss: float | None = None


class Journal:
    """Opened for one run; appends after a resume, and drops what is told of steps not kept."""

    def __init__(self, run: Path, total: int, start: int) -> None:
        self._kept = _before(run / METRICS, start)
        self._log = (run / METRICS).open("wb")
        self._log.write(b"".join(self._kept))
        columns = (
            TextColumn("{task.description}", markup=False),
            BarColumn(),
            MofNCompleteColumn(),
        )
        self._progress = Progress(
            *columns, TextColumn("{task.fields[shown]}"), TimeRemainingColumn()
        )
        self._bar = self._progress.add_task("training", total=total, completed=start, shown="")
        self._board = _board(run)
        self._since = time.monotonic()

    def tell(self, line: Line) -> None:
        """Show one step and write it down."""
        shown = f"loss {line.loss:.3f}  {line.tok_s:,.0f} tok/s  {line.memory_bytes / 2**30:.1f} GB"
        self._progress.update(self._bar, completed=line.step + 1, shown=shown)
        self._log.write(msgspec.json.encode(line) + b"\n")
        self._log.flush()
        if self._board is not None:
            for name, value in msgspec.structs.asdict(line).items():
                if name != "step" and value is not None:
                    self._board.add_scalar(name, value, line.step)

    def speed(self, tokens: int) -> float:
        """Tokens a second since the last time that this was asked."""
        now = time.monotonic()
        self._since, passed = now, now - self._since
        return tokens / max(passed, 1e-9)

    def __enter__(self) -> Journal:
        self._progress.start()
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        self._progress.stop()
        self._log.close()
        if self._board is not None:
            self._board.close()


class Quiet:
    """The journal of a process whose steps another one tells."""

    def tell(self, line: Line) -> None:
        return None

    def speed(self, tokens: int) -> float:
        return 0.0

    def __enter__(self) -> Quiet:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        return None


def memory() -> int:
    """Bytes that were in use at most: on the GPU where there is one, else of this process."""
    if torch.cuda.is_available():
        return int(torch.cuda.max_memory_allocated())
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024


def _before(path: Path, step: int) -> list[bytes]:
    """The lines about earlier steps; a torn last one is left out."""
    if not step or not path.exists():
        return []
    lines = path.read_bytes().splitlines(keepends=True)
    return [line for line in lines[:step] if line.endswith(b"\n")]


def _board(run: Path) -> Any:
    if importlib.util.find_spec("tensorboard") is None:
        return None
    from torch.utils.tensorboard import SummaryWriter

    return SummaryWriter(str(run / "tensorboard"))
