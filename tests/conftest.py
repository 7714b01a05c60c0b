"""Fixtures that several test modules share."""

from __future__ import annotations

import shutil
from collections.abc import AsyncIterator, Iterator
from typing import Any

import pytest
from hypothesis import settings

from tests.scripted import ScriptedCloud, scripted_cloud

# How long an example takes says nothing on a machine that does other work beside.
settings.register_profile("headrace", deadline=None)
settings.load_profile("headrace")


@pytest.fixture
async def cloud() -> AsyncIterator[ScriptedCloud]:
    """A cloud that plays scripts, see tests/scripted.py."""
    async with scripted_cloud() as cloud:
        yield cloud


@pytest.fixture(scope="module")
def browser() -> Iterator[Any]:
    """The system's Chromium; screenshots belong into build/pages."""
    playwright = pytest.importorskip("playwright.sync_api", reason="needs the extra browser")
    chromium = shutil.which("chromium") or shutil.which("chromium-browser")
    if chromium is None:
        pytest.skip("needs Chromium on this machine")
    with playwright.sync_playwright() as running:
        # Root has no sandbox; the pages are ours, and their policy lets them do nothing.
        started = running.chromium.launch(executable_path=chromium, args=["--no-sandbox"])
        yield started
        started.close()
