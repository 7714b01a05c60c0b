"""What /metrics says: a scrape over HTTP, read with Prometheus' own parser."""

from __future__ import annotations

import asyncio
from collections.abc import Mapping
from typing import TypeAlias

from prometheus_client.parser import text_string_to_metric_families

from tests.wire import Response, send

Samples: TypeAlias = "dict[tuple[str, frozenset[tuple[str, str]]], float]"


async def page(url: str, headers: Mapping[str, str] | None = None) -> Response:
    """GET /metrics of the proxy with this base URL."""
    return await send("GET", f"{url.removesuffix('/v1')}/metrics", headers=headers)


async def scraped(url: str, requests: int = 0) -> Samples:
    """All samples, once so many requests are counted: a client has its answer before that."""
    async with asyncio.timeout(5):
        while True:
            response = await page(url)
            assert response.status == 200
            samples = {
                (sample.name, frozenset(sample.labels.items())): sample.value
                for family in text_string_to_metric_families(response.content.decode())
                for sample in family.samples
            }
            if total(samples, "headrace_requests_total") >= requests:
                return samples
            await asyncio.sleep(0.01)


def total(samples: Samples, name: str, **labels: str) -> float:
    """The sum of a metric's samples that have these labels."""
    return sum(
        value
        for (named, has), value in samples.items()
        if named == name and labels.items() <= dict(has).items()
    )
