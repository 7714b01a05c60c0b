"""A router that is trained from a record of real questions places others where they belong.

The questions are those of the two shipped adapters' domains, from the Berkeley Function Calling
Leaderboard.
"""

from __future__ import annotations

from pathlib import Path

import msgspec
import pytest

pytest.importorskip("sklearn", reason="needs the train extra")
pytest.importorskip("pyarrow", reason="needs the record extra")

from proxy.app import running
from proxy.config import parse
from proxy.protocol import router as model
from proxy.protocol import tombstones
from proxy.protocol.exchange import Exchange
from proxy.protocol.sealing import Keyring
from proxy.protocol.tombstones import Tombstone
from proxy.record.compact import Retention, compact
from tests.record.examples import exchange, shelf, write
from tests.serving import listening
from tests.wire import ask
from trainer import router
from trainer.__main__ import main
from trainer.errors import DatasetError
from trainer.recipe.sources import BfclSettings
from trainer.sources.base import Skips
from trainer.sources.bfcl import BfclSource

BOOKINGS = ("*_[0-9]_*",)
SOURCES = {
    "api": BfclSource(
        BfclSettings(
            categories=["simple_python", "multiple", "live_simple"], tools=("*",), without=BOOKINGS
        ),
        Skips(),
    ),
    "bookings": BfclSource(
        BfclSettings(categories=["live_simple", "live_multiple"], tools=BOOKINGS), Skips()
    ),
}


def asked(id: str, text: str, **fields: object) -> Exchange:
    """The exchange of a question, in a conversation of its own."""
    request = {"model": "m", "messages": [{"role": "user", "content": text}]}
    raw = msgspec.Raw(msgspec.json.encode(request))
    return exchange(id, **({"request": raw, "conversation": id} | fields))


@pytest.fixture(scope="module")
def questions() -> list[Exchange]:
    """Some 1,900 questions, each placed by its tools."""
    return [
        asked(f"{domain}-{number}", row.question, domain=domain)
        for domain, source in SOURCES.items()
        for number, row in enumerate(source.rows())
    ]


@pytest.fixture(scope="module")
def trained(questions: list[Exchange]) -> router.Trained:
    return router.train(router.examples(questions))


def test_questions_that_it_has_not_seen_go_where_they_belong(trained: router.Trained):
    report = trained.report

    assert report.right.interval.low > 0.88
    assert report.followed.hits > 0.6 * report.followed.n
    assert 1 - report.right_where_followed.interval.high < 0.05


def test_guesses_are_no_surer_than_they_are_right(questions: list[Exchange]):
    sides = router._split(router.examples(questions))
    domains, weights, bias = router._fit(sides.train)
    fitted = model.RouterModel(
        domains, weights, bias, router.calibrate([router.Judged(0, True)], "", "")
    )

    judged = router._judged(fitted, sides.tune + sides.test)

    promised = sum(one.confidence for one in judged)
    right = router.Share(sum(one.is_right for one in judged), len(judged))
    assert promised / len(judged) in right.interval


def test_only_what_the_proxy_was_told_is_learned():
    reasons = ["glob", "unknown", "no_tools", "mixed", "predicted"]
    recorded = [asked(reason, f"About {reason}", route=reason) for reason in reasons]
    recorded += [asked("file", "A file", endpoint="/files")]
    recorded += [asked("bare", "?!"), exchange("unkept", request=msgspec.Raw(b"{}"))]

    texts = [example.text for example in router.examples(recorded)]

    assert texts == ["about glob", "about no_tools", "about unknown"]


def test_question_that_came_twice_is_one_example():
    recorded = [asked("1", "Find a hotel!"), asked("2", "find a hotel")]

    assert len(router.examples(recorded)) == 1


def test_conversation_stays_on_one_side():
    talk = [router.Example(f"question {n}", "api", f"talk {n % 50}") for n in range(500)]

    groups = [{example.group for example in side} for side in router._split(talk)]

    assert sum(map(len, groups)) == 50


def test_record_of_one_domain_teaches_nothing(questions: list[Exchange]):
    few = [one for one in questions if one.domain == "api"]
    few += [asked(f"few-{n}", f"room {n}", domain="bookings") for n in range(router.LEAST - 1)]

    with pytest.raises(DatasetError, match="each of two domains"):
        router.train(router.examples(few))


def test_segments_and_archive_are_read_without_what_was_erased(tmp_path: Path):
    write(tmp_path, asked("a", "first"), asked("b", "second"))
    compact(shelf(tmp_path), Retention())
    write(tmp_path, asked("c", "third"))
    gone = Tombstone(id="b", tenant="t", erased_at=0, reasons=["caller"])
    (tmp_path / tombstones.FOLDER).mkdir()
    (tmp_path / tombstones.FOLDER / "1.jsonl").write_bytes(tombstones.encode([gone]))

    assert sorted(one.id for one in router.recorded(tmp_path)) == ["a", "c"]


def held_out(questions: list[Exchange], trained: router.Trained, domain: str) -> str:
    """A question of this domain that the model has not seen, and is sure of; "" for one that it is
    not sure of."""
    floor = trained.report.floor
    for example in router._split(router.examples(questions)).test:
        likeliest = max(
            zip(trained.model.probabilities(example.text), trained.model.domains, strict=True)
        )
        if (likeliest[1] if likeliest[0] >= floor else "") == domain:
            return example.text
    raise AssertionError(domain)


def test_encrypted_record_is_told_on_one_line(tmp_path: Path, capsys: pytest.CaptureFixture[str]):
    write(tmp_path, asked("a", "first"), keyring=Keyring({"k1": b"k" * 32}, "k1"))

    assert main(["router", "train", "--record", str(tmp_path), "--out", "r"]) == 1

    (line,) = capsys.readouterr().err.splitlines()
    assert f"{tmp_path}: the record is encrypted" in line


async def test_model_of_the_command_places_requests_with_mixed_tools_and_without(
    questions: list[Exchange],
    trained: router.Trained,
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
):
    path = tmp_path / "models" / "router.safetensors"
    write(tmp_path / "record", *questions)
    arguments = ["--record", str(tmp_path / "record"), "--out", str(path)]
    bookings, api, vague = (held_out(questions, trained, d) for d in ("bookings", "api", ""))

    assert main(["router", "train", *arguments]) == 0

    assert "likeliest domain is right" in capsys.readouterr().out
    async with running(parse(ROUTES, tmp_path, {})) as proxy, listening(proxy.app) as url:
        answers = [
            await ask(url, messages=said(bookings), tools=MIXED),
            await ask(url, messages=said(api), tools=MIXED),
            await ask(url, messages=said(vague), tools=MIXED),
            await ask(url, messages=said(bookings), tools=None),
            await ask(url, messages=said(vague), tools=None),
        ]
    placed = [one.headers["x-headrace-domain"] for one in answers]
    assert placed == ["bookings", "api", "fallback", "bookings", "chat"]


def said(text: str) -> list[dict[str, str]]:
    return [{"role": "user", "content": text}]


MIXED = [
    {"type": "function", "function": {"name": name, "parameters": {"type": "object"}}}
    for name in ("Hotels_2_ReserveHotel", "calculate_area")
]
ROUTES = """
version: 1
models: [gpt-4o]
backends: {cloud: {kind: openai, base_url: "http://127.0.0.1:1/v1"}}
domains:
  api: {plan: [cloud], tools: ["calculate_*"]}
  bookings: {plan: [cloud], tools: ["*_[0-9]_*"]}
  fallback: {plan: [cloud]}
  chat: {plan: [cloud]}
defaults:
  tools: fallback
  chat: chat
  mixed: predict
  router: {model: models/router.safetensors, without_tools: true}
"""
