"""The chart, rendered by Helm, here as a library (package helm-python-sdk).

Kubernetes' own schemas come from the package kubernetes-validate. Where either is missing, what
needs it is skipped and says so.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
import yaml

ROOT = Path(__file__).parent.parent.parent
CHART = ROOT / "helm" / "headrace"
VALUES = yaml.safe_load((CHART / "values.yaml").read_text())
SCHEMA = json.loads((CHART / "values.schema.json").read_text())
EXAMPLES = {path.stem: yaml.safe_load(path.read_text()) for path in sorted(CHART.glob("ci/*.yaml"))}
INSTALL = "pip install --require-hashes -r scripts/locks/deploy.txt"
Manifest = dict[str, Any]


def merged(over: object, under: object) -> object:
    """Values as Helm merges them: mappings by key, null drops one, anything else replaces."""
    if not (isinstance(over, dict) and isinstance(under, dict)):
        return over
    both = {**under, **{key: merged(value, under.get(key)) for key, value in over.items()}}
    return {key: value for key, value in both.items() if value is not None}


@pytest.fixture(scope="session")
def helm() -> Any:
    return pytest.importorskip("helm_python", reason=f"Helm is not installed: {INSTALL}")


@pytest.fixture(scope="session")
def chart(helm: Any) -> Iterator[Any]:
    with helm.Chart.load(CHART) as chart:
        yield chart


@pytest.fixture(scope="session")
def manifests(chart: Any) -> Callable[[Manifest], list[Manifest]]:
    def manifests(values: Manifest) -> list[Manifest]:
        """All that the release `demo` in the namespace `prod` consists of."""
        chart.validate_schema(values)
        texts = chart.render(values, name="demo", namespace="prod")
        files = (text for path, text in texts.items() if path.endswith(".yaml"))
        return [found for text in files for found in yaml.safe_load_all(text) if found]

    return manifests


@pytest.fixture(scope="session")
def render(manifests: Callable[[Manifest], list[Manifest]]) -> Callable[[Manifest], Any]:
    def render(values: Manifest) -> dict[str, Manifest]:
        """Manifests by kind, for values that make one of each; the one Pod is `helm test`'s."""
        return {manifest["kind"]: manifest for manifest in manifests(values)}

    return render


@pytest.fixture(scope="session")
def notes(chart: Any) -> Callable[[Manifest], str]:
    def notes(values: Manifest) -> str:
        return chart.render(values, name="demo", namespace="prod")["headrace/templates/NOTES.txt"]

    return notes


def pod_of(manifest: Manifest) -> Manifest | None:
    """The pod's spec in a manifest that makes pods; None in others."""
    match manifest["kind"]:
        case "Pod":
            return manifest["spec"]
        case "Deployment":
            return manifest["spec"]["template"]["spec"]
        case "CronJob":
            return manifest["spec"]["jobTemplate"]["spec"]["template"]["spec"]
        case _:
            return None
