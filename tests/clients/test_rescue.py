"""openai-node gets a valid call for every question; needs what `make clients-setup` installs."""

from __future__ import annotations

import pytest

from tests.clients.rescue import NODE, ask_all
from tests.rescue import check_all_are_rescued

pytestmark = pytest.mark.skipif(
    not (NODE / "node_modules/openai").exists(), reason="needs `make clients-setup`"
)


@pytest.mark.parametrize("streams", [False, True])
async def test_openai_node_gets_a_valid_call_for_every_question(streams: bool):
    assert await check_all_are_rescued(ask_all, streams) == 30
