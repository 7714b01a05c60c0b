"""What start-up needs: work that runs beside a body, and extras that may not be installed."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Coroutine
from contextlib import asynccontextmanager

import structlog

from proxy.errors import MissingExtra

log = structlog.get_logger(__name__)


@asynccontextmanager
async def beside(work: Coroutine[None, None, None], name: str) -> AsyncIterator[None]:
    """Run a task beside the body and end it with the body; if it dies before, so does the body."""
    async with asyncio.TaskGroup() as tasks:
        task = tasks.create_task(_logged(work, name), name=name)
        yield
        task.cancel()


async def _logged(work: Coroutine[None, None, None], name: str) -> None:
    try:
        await work
    except Exception:
        log.exception("background_task_died", task=name)
        raise


def missing(place: str, extra: str, error: ImportError) -> Exception:
    """What to raise where a package of an extra cannot be imported, needed at a place."""
    if (error.name or "").startswith("proxy"):
        return error
    return MissingExtra(
        f"{place}: this needs the package {error.name!r}, which is not installed;"
        f" run: pip install 'headrace[{extra}]'"
    )
