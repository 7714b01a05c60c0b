"""What is shipped for Prometheus and Grafana names metrics that there are."""

from __future__ import annotations

import re
from pathlib import Path

import msgspec
import pytest
import yaml

ROOT = Path(__file__).parent.parent
DEPLOY = ROOT / "deploy"
_NAME = re.compile(r"\b(?:headrace|gen_ai)_[a-z_]+")
_SUFFIX = re.compile(r"_(?:total|bucket|count|sum)$")


def known() -> set[str]:
    """Names that the proxy's own code gives to metrics and labels."""
    code = "".join((ROOT / "proxy" / f"{name}.py").read_text() for name in ("metrics", "gauges"))
    return {_SUFFIX.sub("", name) for name in _NAME.findall(code)}


def alerts() -> list[dict[str, object]]:
    groups = yaml.safe_load((DEPLOY / "alerts.yaml").read_text())["groups"]
    return [rule for group in groups for rule in group["rules"]]


def panels() -> list[dict[str, object]]:
    return msgspec.json.decode((DEPLOY / "grafana.json").read_bytes())["panels"]


def expressions() -> list[str]:
    graphs = [target["expr"] for panel in panels() for target in panel["targets"]]
    return [str(rule["expr"]) for rule in alerts()] + graphs


@pytest.mark.parametrize("expression", expressions())
def test_metrics_of_an_expression_are_the_proxy_s(expression: str):
    named = {_SUFFIX.sub("", name) for name in _NAME.findall(expression)}

    assert named
    assert named - known() - {"headrace_record_dropped", "headrace_record_lost"} == set()
    assert expression.count("(") == expression.count(")")
    assert expression.count("[") == expression.count("]")


def test_alerts_say_what_to_do():
    for rule in alerts():
        assert set(rule) >= {"alert", "expr", "labels", "annotations"}
        assert set(rule["annotations"]) == {"summary", "remedy"}


def test_panels_do_not_overlap():
    seen: set[tuple[int, int]] = set()
    for panel in panels():
        place = panel["gridPos"]
        cells = {
            (x, y)
            for x in range(place["x"], place["x"] + place["w"])
            for y in range(place["y"], place["y"] + place["h"])
        }
        assert not seen & cells
        assert place["x"] + place["w"] <= 24
        seen |= cells
