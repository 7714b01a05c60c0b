"""A candidate on a running proxy, from its loading to the first clients that it answers."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from pathlib import Path

import pytest

pytest.importorskip("gguf", reason="needs the embedded or the train extra")
pytest.importorskip("obstore", reason="needs the record extra")

from proxy.protocol import champions
from tests.engines import bundles
from tests.engines.farm import SlowVllm, farm
from tests.engines.pooled import Pooled, pooled
from trainer.promotion.evidence import Record
from trainer.promotion.promote import Outcome, Promotion
from trainer.promotion.proxies import Proxies
from trainer.promotion.settings import PromotionSettings, Stage
from trainer.recipe.sources import ExchangesSettings
from trainer.registry.registry import Registry

SETTINGS = PromotionSettings(stages=(Stage(share=0.5),), shadow_share=1.0, shadow_pairs=6)


def stage(proxy: Pooled) -> str:
    candidate = champions.read(proxy.adapters).domains["chat"].candidate
    return candidate.stage if candidate else ""


async def advanced(promotion: Promotion, until: Callable[[], bool]) -> Outcome:
    """Looked at again and again, as `promote` does."""
    async with asyncio.timeout(60):
        outcome = await asyncio.to_thread(promotion.advance)
        while not until():
            await asyncio.sleep(0.05)
            outcome = await asyncio.to_thread(promotion.advance)
    return outcome


async def test_a_candidate_is_asked_unseen_by_a_proxy_and_then_gets_its_share(tmp_path: Path):
    async with (
        farm(SlowVllm, machines=1) as machines,
        pooled(tmp_path, "vllm", machines) as proxy,
    ):
        bundles.write(proxy.adapters, "chat-v2")
        promotion = Promotion(
            Registry(proxy.adapters),
            "chat",
            "chat-v2",
            SETTINGS,
            Record([ExchangesSettings(directory=str(tmp_path / "record"))]),
            proxies=Proxies([proxy.url]),
        )
        await advanced(promotion, lambda: stage(proxy) == "shadow")
        told = {"adapter": "chat-v2", "stage": "shadow", "state": "proven", "share": 1.0}
        await proxy.until(lambda seen: told.items() <= seen.candidates.get("chat", {}).items())
        replies = [await proxy.ask(f"Client {number}", number % 2 == 0) for number in range(7)]
        await advanced(promotion, lambda: stage(proxy) == "canary")

    assert all(reply.is_whole for reply in replies)
    assert [one.attempts[0].adapter for one in proxy.recorded()] == ["chat-v1"] * 7
    reasons = [one.reason for one in champions.history(proxy.adapters, "chat")]
    said = next(one for one in reasons if "out of the clients' sight" in one)
    assert said.startswith(("nothing was found in 6", "nothing was found in 7"))
