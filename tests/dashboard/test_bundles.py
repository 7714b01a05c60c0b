from __future__ import annotations

from pathlib import Path

from proxy.catalog import Catalog, Champions
from proxy.config import Config, parse
from proxy.dashboard import bundles
from proxy.protocol import champions
from proxy.protocol.champions import Alias, Candidate
from tests.serving import Engine
from tests.test_catalog import BASE, write_bundle


def config(directory: Path) -> Config:
    text = (
        "version: 1\nmodels: [m]\n"
        f"backends: {{local: {{kind: embedded, base_model: m, adapters: '{directory}'}}}}\n"
        "domains: {all: {plan: [local], canary: {adapter: api-v2, share: 0.05}}}\n"
        "defaults: {tools: all, chat: all}\n"
    )
    return parse(text, directory, {})


def catalog(directory: Path) -> Catalog:
    known = Champions.read(directory, BASE, ["all"])
    return Catalog({"local": Engine("local", [])}, {"local": known})


def read(directory: Path, of: Catalog) -> bundles.Shelf:
    return bundles.read(config(directory), of, of.adapters)


def test_champion_candidate_and_former_one_are_told(tmp_path: Path):
    for id in ("api-v1", "api-v2", "api-v3"):
        write_bundle(tmp_path / id)
    champions.appoint(tmp_path, "all", "api-v1", "the first")
    champions.appoint(tmp_path, "all", "api-v2", "better")
    candidate = Candidate(adapter="api-v3", share=0.1, stage="canary", run="20260101-1")
    alias = Alias(champion="api-v2", previous="api-v1", candidate=candidate)
    champions.change(tmp_path, "all", alias, 2, "try it")

    shelf = read(tmp_path, catalog(tmp_path))

    (serving,) = shelf.serving
    assert (serving.champion, serving.alias.candidate, serving.canary) == (
        "api-v2",
        candidate,
        "api-v2 5%",
    )
    assert [(one.before, one.after, one.reason) for one in serving.changes] == [
        ("api-v2", "api-v2 + api-v3 (canary 10%)", "try it"),
        ("api-v1", "api-v2", "better"),
        ("nothing", "api-v1", "the first"),
    ]
    assert {one.id: one.role for one in shelf.bundles} == {
        "api-v1": "previous",
        "api-v2": "champion",
        "api-v3": "candidate",
    }
    assert all(one.weights for one in shelf.bundles)


def test_file_may_be_ahead_of_what_answers(tmp_path: Path):
    write_bundle(tmp_path / "api-v1")
    champions.appoint(tmp_path, "all", "api-v1", "the first")
    known = catalog(tmp_path)
    champions.appoint(tmp_path, "all", "api-v2", "better")

    (serving,) = read(tmp_path, known).serving

    assert (serving.champion, serving.alias.champion) == ("api-v1", "api-v2")


def test_broken_champion_file_is_a_problem_and_no_error(tmp_path: Path):
    known = catalog(tmp_path)
    (tmp_path / "champions.json").write_text("{")

    shelf = read(tmp_path, known)

    assert shelf.serving == [] and len(shelf.problems) == 1
    assert "champions.json" in shelf.problems[0]
