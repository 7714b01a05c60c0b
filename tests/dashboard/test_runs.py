from __future__ import annotations

from pathlib import Path

import msgspec
import pytest

from proxy.dashboard import runs
from tests.dashboard.visiting import HOSTILE, get
from tests.serving import Engine, serving_with, settings

STEPS = [
    {
        "name": "dataset",
        "state": "done",
        "started_at": 1.0,
        "finished_at": 3.0,
        "figures": {"n": 9},
    },
    {"name": "train", "state": "running", "started_at": 3.0, "tries": 1},
]
VERDICT = {
    "candidate": "geo-v8",
    "decision": "promote",
    "sentence": "geo-v8 is better.",
    "power": "100 items show 9 points.",
    "rules": [{"name": "not_worse", "state": "passed", "numbers": {}, "sentence": "It is not."}],
    "at": "2026-01-01",
}


def write(directory: Path, domain: str, id: str, verdict: object = None, **fields: object) -> None:
    """A run as the trainer writes it; it has more fields than are read here."""
    run = directory / domain / id
    (run / "verdict").mkdir(parents=True)
    manifest = {"layout": 1, "id": id, "domain": domain, "until": 1.0, "recipe": {}, "steps": STEPS}
    (run / "manifest.json").write_bytes(msgspec.json.encode(manifest | fields))
    if verdict is not None:
        (run / "verdict" / "verdict.json").write_bytes(msgspec.json.encode(verdict))


@pytest.fixture
def filled(tmp_path: Path) -> Path:
    write(tmp_path, "geo", "20260101-1", VERDICT, outcome="promoted", adapter="geo-v8", new_rows=5)
    write(tmp_path, "api", "20260102-1", state="running", cause=HOSTILE, adapter="api-v2")
    return tmp_path


def test_runs_of_all_domains_newest_first(filled: Path):
    found = runs.read(filled)

    assert [(run.domain, run.id, run.now) for run in found.runs] == [
        ("api", "20260102-1", "train"),
        ("geo", "20260101-1", "train"),
    ]
    assert [step.took_s for step in found.runs[0].steps] == [2.0, None]
    assert found.unread == []


@pytest.mark.parametrize("content", ["{", pytest.param('{"a":' * 5000, id="without a bottom")])
def test_broken_manifest_is_told(filled: Path, content: str):
    (filled / "geo" / "20260101-1" / "manifest.json").write_text(content)

    found = runs.read(filled)

    assert [run.id for run in found.runs] == ["20260102-1"]
    assert found.unread == ["geo/20260101-1/manifest.json"]


def test_one_run_has_its_verdict(filled: Path):
    run, verdict = runs.one(filled, "geo", "20260101-1") or pytest.fail("it is there")

    assert run.adapter == "geo-v8"
    assert verdict is not None and (verdict.decision, len(verdict.rules)) == ("promote", 1)
    assert runs.one(filled, "api", "20260102-1") == (runs.read(filled).runs[0], None)


@pytest.mark.parametrize(
    ("domain", "id"), [("..", "x"), ("geo", ".."), ("geo/20260101-1", ""), ("/etc", "x"), ("", "")]
)
def test_nothing_outside_of_the_directory_is_read(filled: Path, domain: str, id: str):
    assert runs.one(filled / "geo", domain, id) is None


async def test_pages_show_them(filled: Path):
    config = settings("local", extra=f"dashboard: {{runs: '{filled}'}}")
    async with serving_with(config, Engine("local", [])) as url:
        all_runs = (await get(url, "/runs")).content.decode()
        one = (await get(url, "/run?domain=geo&id=20260101-1")).content.decode()
        none = await get(url, "/run?domain=geo&id=nonsense")

    assert "geo-v8" in all_runs and "api-v2" in all_runs
    assert "<script>" not in all_runs and "&lt;script&gt;" in all_runs and "U+202E" in all_runs
    assert "It is not." in one and "not worse" in one and "2.00 s" in one
    assert none.status == 404


async def test_page_says_how_where_no_directory_is_named():
    async with serving_with(settings("local"), Engine("local", [])) as url:
        page = (await get(url, "/runs")).content.decode()

    assert "dashboard: {runs:" in page
