"""Traffic of a domain with a candidate, as the proxy would have recorded it."""

from __future__ import annotations

import itertools
from dataclasses import dataclass, field
from pathlib import Path

import msgspec

from proxy.protocol import champions
from proxy.protocol.champions import Alias, Champions
from proxy.protocol.exchange import Answer, Attempt, Exchange
from proxy.protocol.openai import FunctionCall, ToolCall
from proxy.protocol.segments import Record as Recorded
from tests.engines import bundles
from tests.record.examples import NOW, exchange, shadowed, write
from trainer.promotion.evidence import Record
from trainer.promotion.promote import Outcome, Promotion
from trainer.promotion.settings import PromotionSettings, Stage
from trainer.recipe.sources import ExchangesSettings
from trainer.registry.registry import Registry

TOOLS = [{"type": "function", "function": {"name": "ping", "parameters": {"type": "object"}}}]
REQUEST = msgspec.Raw(
    msgspec.json.encode(
        {"model": "m", "messages": [{"role": "user", "content": "Is a up?"}], "tools": TOOLS}
    )
)
QUICK = PromotionSettings(
    stages=(
        Stage(share=0.25, min_conversations=8, max_conversations=12, min_s=10),
        Stage(share=0.5, min_conversations=8, max_conversations=12, min_s=10),
    ),
    settle_s=2,
    shadow_pairs=0,
    hold_s=100,
    cooldown_s=1000,
    patience_s=5000,
)


def called(host: str = "a") -> Answer:
    call = ToolCall("call-1", FunctionCall("ping", f'{{"host":"{host}"}}'))
    return Answer(tool_calls=[call], finish_reason="tool_calls")


def tried(adapter: str | None, outcome: str = "completed", **fields: object) -> Attempt:
    """An attempt of ours; of a cloud where no adapter is named."""
    whole: dict[str, object] = {
        "kind": "primary" if adapter else "fallback",
        "backend": "local" if adapter else "azure",
        "adapter": adapter,
        "format": "hermes" if adapter else None,
        "model": None if adapter else "gpt-4o",
        "outcome": outcome,
        "answer": called(),
        "started_at": NOW,
        "total_s": 0.2,
    }
    return msgspec.convert(whole | fields, Attempt)


@dataclass
class Site:
    """A domain `api` whose champion is `api-v1`, its record, and the time there."""

    directory: Path
    settings: PromotionSettings = QUICK
    now: float = NOW
    numbers: itertools.count[int] = field(default_factory=itertools.count)

    @property
    def adapters(self) -> Path:
        return self.directory / "adapters"

    @property
    def registry(self) -> Registry:
        return Registry(self.adapters)

    @property
    def alias(self) -> Alias:
        return self.champions.domains["api"]

    @property
    def champions(self) -> Champions:
        return champions.read(self.adapters)

    @property
    def record(self) -> Record:
        return Record([ExchangesSettings(directory=str(self.directory / "record"))])

    def promotion(self, adapter: str = "api-v2", **more: object) -> Promotion:
        given = {"run": "run-1"} | more
        return Promotion(
            self.registry, "api", adapter, self.settings, self.record, clock=self.clock, **given
        )

    def promote(self, adapter: str = "api-v2", **more: object) -> Outcome:
        return self.promotion(adapter, **more).advance()

    def clock(self) -> float:
        return self.now

    def later(self, seconds: float) -> None:
        self.now += seconds

    def served(self, side: str, count: int, *attempts: Attempt, **fields: object) -> list[Exchange]:
        """So many conversations of a side: `canary:api-v2`, `champion:api-v1`, or of nobody's."""
        made = []
        for number in itertools.islice(self.numbers, count):
            tries = attempts or (tried(side.partition(":")[2] or "api-v1"),)
            given = {
                "assigned": side,
                "conversation": f"conv-{number}",
                "started_at": self.now + number / 1000,
                "request": REQUEST,
                "attempts": list(tries),
            }
            made.append(exchange(f"e-{number}", **(given | fields)))
        self.wrote(*made)
        return made

    def shadowed(
        self,
        count: int,
        said: Attempt | None = None,
        cloud: Attempt | None = None,
        **fields: object,
    ) -> list[Exchange]:
        """So many conversations that the champion answered and the candidate was asked about; of
        whom a cloud said something, too, where it is named."""
        made = self.served("", count, **fields)
        own = said or tried("api-v2", kind="shadow")
        for one in made:
            asked = [own] if cloud is None else [own, cloud]
            for number, attempt in enumerate(asked):
                self.wrote(shadowed(f"shadow-{one.id}-{number}", one.id, attempt=attempt))
        return made

    def wrote(self, *records: Recorded) -> None:
        write(self.directory / "record", *records)


def site(directory: Path, champion: str = "api-v1", **settings: object) -> Site:
    """With no champion where its name is empty."""
    (directory / "record").mkdir()
    for id in ("api-v1", "api-v2", "api-v3"):
        if not (directory / "adapters" / id).exists():
            bundles.write(directory / "adapters", id)
    if champion:
        champions.appoint(directory / "adapters", "api", champion, "test")
    return Site(directory, msgspec.structs.replace(QUICK, **settings))
