"""`headrace-trainer train --on k8s`: Jobs made of the chart's CronJob, as Kubernetes takes them."""

from __future__ import annotations

import json
import os
import stat
from pathlib import Path
from typing import Any

import pytest

pytest.importorskip("gguf", reason="needs the train extra")

from tests.deploy.conftest import INSTALL, Manifest
from trainer import recipe
from trainer.__main__ import main
from trainer.jobs import kubernetes
from trainer.recipe import RECIPES

VALUES = {
    "trainer": {
        "enabled": True,
        "existingSecret": "teacher",
        "flywheel": {"domains": {"api": {"recipe": "api"}}},
        "runs": {"existingClaim": "runs"},
    },
    "adapters": {"enabled": True},
}
KUBECTL = """#!/bin/sh
echo "$@" >> "$0.asked"
case "$1" in
  get) cat "$0.cronjob" ;;
  apply) cat > "$0.applied" ;;
esac
"""


@pytest.fixture
def cron(manifests: Any) -> Manifest:
    """The chart's CronJob of the trainer."""
    (found,) = (
        one for one in manifests(VALUES) if one["kind"] == "CronJob" and "trainer" in str(one)
    )
    return found


def made(cron: Manifest, **recipes: str) -> dict[tuple[str, str], Manifest]:
    """(kind, domain) → manifest."""
    return {
        (one["kind"], one["metadata"]["labels"]["headrace.dev/domain"]): one
        for one in kubernetes.manifests(cron, recipes)
    }


def test_each_domain_is_a_job_that_kubernetes_takes(cron):
    schemas = pytest.importorskip("kubernetes_validate", reason=f"missing: {INSTALL}")

    found = made(cron, api="domain: api", docs="domain: docs")

    assert set(found) == {(kind, d) for kind in ("ConfigMap", "Job") for d in ("api", "docs")}
    for one in found.values():
        schemas.validate(one, "1.34", strict=True)


def test_a_job_is_the_charts_but_for_its_recipe_and_its_run(cron):
    job = made(cron, api="domain: api")["Job", "api"]

    pod, chart = (
        one["template"]["spec"] for one in (job["spec"], cron["spec"]["jobTemplate"]["spec"])
    )
    (container,), (charts,) = pod["containers"], chart["containers"]
    assert {k: v for k, v in container.items() if k != "args"} == {
        k: v for k, v in charts.items() if k != "args"
    }
    assert container["args"] == [
        *("train", "--recipe", "/etc/trainer/recipe.yaml", "--adapters", "/adapters"),
        *("--out", "/runs/api"),
    ]
    mounted = {one["mountPath"] for one in container["volumeMounts"]}
    assert {"/etc/trainer", "/adapters", "/runs"} <= mounted
    recipes = [v for v in pod["volumes"] if v["name"] == "recipe"]
    assert recipes == [{"name": "recipe", "configMap": {"name": job["metadata"]["name"]}}]
    assert [v for v in pod["volumes"] if v not in recipes] == [
        v for v in chart["volumes"] if v["name"] != "recipe"
    ]


def test_names_are_kubernetes_own_and_tell_recipes_apart(cron):
    names = {
        one["metadata"]["name"]
        for text in ("rank: 8", "rank: 16")
        for one in kubernetes.manifests(cron, {"Größe_1." * 12: text})
    }

    assert len(names) == 2
    assert all(len(name) <= 63 and name.replace("-", "").isalnum() for name in names)
    assert all(name.isascii() and name == name.lower() for name in names)


def test_the_command_writes_what_kubectl_applies(cron, tmp_path, capsys):
    (tmp_path / "cron.json").write_text(json.dumps(cron))
    given = ("--recipe", "api", "--recipe", "bookings", "--cronjob", str(tmp_path / "cron.json"))

    assert main(["train", "--on", "k8s", *given, "--out", str(tmp_path / "runs")]) == 0

    written = json.loads((tmp_path / "runs" / "jobs.json").read_text())
    texts = [one["data"]["recipe.yaml"] for one in written["items"] if one["kind"] == "ConfigMap"]
    assert texts == [(RECIPES / f"{name}.yaml").read_text() for name in ("api", "bookings")]
    (tmp_path / "again.yaml").write_text(texts[0])
    assert recipe.read(tmp_path / "again.yaml").domain == "api"


def test_with_the_name_of_a_cronjob_it_is_fetched_and_the_jobs_are_applied(
    cron, tmp_path, monkeypatch
):
    # A cluster cannot be had here: a script in kubectl's place keeps what it is told.
    kubectl = tmp_path / "bin" / "kubectl"
    kubectl.parent.mkdir()
    kubectl.write_text(KUBECTL)
    kubectl.chmod(kubectl.stat().st_mode | stat.S_IXUSR)
    Path(f"{kubectl}.cronjob").write_text(json.dumps(cron))
    monkeypatch.setenv("PATH", f"{kubectl.parent}:{os.environ['PATH']}")
    given = ("--recipe", "api", "--cronjob", "demo-headrace-trainer")

    assert main(["train", "--on", "k8s", *given, "--out", str(tmp_path / "runs")]) == 0

    asked = Path(f"{kubectl}.asked").read_text().splitlines()
    assert asked == ["get cronjob demo-headrace-trainer -o json", "apply -f -"]
    applied = json.loads(Path(f"{kubectl}.applied").read_text())
    assert [one["kind"] for one in applied["items"]] == ["ConfigMap", "Job"]


def test_what_is_no_cronjob_of_the_chart_is_told(tmp_path, capsys):
    (tmp_path / "cron.json").write_text('{"kind": "Pod"}')
    given = ("--recipe", "api", "--cronjob", str(tmp_path / "cron.json"))

    assert main(["train", "--on", "k8s", *given, "--out", str(tmp_path / "runs")]) == 1
    assert "is no CronJob of the chart" in capsys.readouterr().err
