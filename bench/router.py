"""What a router model of real questions is worth, and what it costs a request.

    .venv/bin/python bench/router.py

The questions are those of the two shipped adapters' domains (Berkeley Function Calling Leaderboard,
their recipes' tools), each placed by its own tools, as the record would have them.
"""

from __future__ import annotations

import platform
import statistics
import time
from collections.abc import Iterator

from proxy.protocol import router as model
from proxy.protocol.openai import Message
from trainer import router
from trainer.recipe.sources import BfclSettings
from trainer.sources.base import Skips
from trainer.sources.bfcl import BfclSource

ROUNDS = 7
BOOKINGS = ("*_[0-9]_*",)
LIVE = ["live_simple", "live_multiple", "live_irrelevance"]
SOURCES = {
    "api": BfclSource(
        BfclSettings(
            categories=["simple_python", "multiple", "irrelevance", *LIVE],
            tools=("*",),
            without=BOOKINGS,
        ),
        Skips(),
    ),
    "bookings": BfclSource(BfclSettings(categories=LIVE, tools=BOOKINGS), Skips()),
}


def questions() -> Iterator[router.Example]:
    for domain, source in SOURCES.items():
        for row in source.rows():
            text = " ".join(model.words(row.question))
            yield router.Example(text, domain, text)


def microseconds(predicts: model.RouterModel, texts: list[str]) -> list[float]:
    """Of each question: the median of some rounds."""
    times = []
    for text in texts:
        messages = [Message(role="user", content=text)]
        rounds = []
        for _ in range(ROUNDS):
            began = time.perf_counter()
            predicts.predict(messages, predicts.domains)
            rounds.append((time.perf_counter() - began) * 1e6)
        times.append(statistics.median(rounds))
    return times


def main() -> None:
    asked = sorted({example for example in questions() if example.text})
    began = time.perf_counter()
    trained = router.train(asked)
    print(f"{platform.platform()}, Python {platform.python_version()}")
    print(f"{trained.report.questions}, trained in {time.perf_counter() - began:.1f} s")
    print(f"likeliest domain is right   {trained.report.right}")
    print(f"sure enough                 {trained.report.followed}, from {trained.report.floor:.3f}")
    print(f"right where sure enough     {trained.report.right_where_followed}")
    texts = [example.text for example in asked]
    cuts = statistics.quantiles(microseconds(trained.model, texts), n=100)
    print(f"one guess: p50 {cuts[49]:.0f} µs, p99 {cuts[98]:.0f}")
    longest = ["".join(texts)[at : at + 2000] for at in range(0, 200_000, 2000)]
    cuts = statistics.quantiles(microseconds(trained.model, longest), n=100)
    print(f"of {model.MAX_CHARACTERS} characters: p50 {cuts[49]:.0f} µs, p99 {cuts[98]:.0f}")


if __name__ == "__main__":
    main()
