"""The official Python client meets no difference; `make test-clients` asks all other clients."""

from __future__ import annotations

import sys

import pytest

from tests.clients import report
from tests.clients.matrix import outcome_of
from tests.clients.places import places
from tests.clients.report import Client

pytest.importorskip("openai")


@pytest.mark.parametrize("program", ["openai_async.py", "openai_helpers.py", "openai_azure.py"])
async def test_official_client_meets_no_difference(program: str):
    client = Client(program, program, sys.executable, program)

    async with places() as everything:
        outcome = await outcome_of(client, everything)

    assert outcome.ok, report.progress(outcome)
