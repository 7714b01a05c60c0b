"""Fixtures that several test modules share."""

from __future__ import annotations

from collections.abc import AsyncIterator

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
