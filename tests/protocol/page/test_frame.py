import re
import sys

import pytest
from jinja2 import UndefinedError

from proxy.protocol.page.charts import Mark, intervals
from proxy.protocol.page.frame import page

TEMPLATE = """{% extends "page.html.jinja" %}
{% block verdict %}<p class="verdict">{{ verdict }}</p>{% endblock %}
{% block body %}{{ chart }}<p>{{ 0.5 | told("share") }}</p>{% endblock %}
"""


@pytest.fixture
def package(tmp_path, monkeypatch):
    name = "reporter"
    folder = tmp_path / name / "templates"
    folder.mkdir(parents=True)
    (tmp_path / name / "__init__.py").touch()
    (folder / "report.html.jinja").write_text(TEMPLATE)
    monkeypatch.syspath_prepend(tmp_path)
    yield name
    sys.modules.pop(name, None)


def values(**others):
    chart = intervals([Mark("geo", 0.5, 0.4, 0.6)], unit="share", title="Agreement")
    return {"title": "Report", "subtitle": "today", "verdict": "Better.", "chart": chart} | others


def test_values_are_escaped_and_charts_are_not(package):
    html = page(package, "report.html.jinja", **values(verdict="<script>alert(1)</script>"))

    assert "&lt;script&gt;alert(1)&lt;/script&gt;" in html
    assert "<script" not in html
    assert "<svg " in html
    assert "50.0 %" in html


def test_the_page_needs_nothing_from_elsewhere(package):
    html = page(package, "report.html.jinja", **values())

    policy = re.search(r'Content-Security-Policy" content="([^"]*)"', html)
    assert policy and policy[1].startswith("default-src 'none'")
    namespaces = re.sub(r'xmlns(:\w+)?="[^"]*"', "", html)
    assert not re.search(r"https?:|//\w|@import|url\((?!#)", namespaces)


def test_a_value_that_is_missing_is_an_error(package):
    with pytest.raises(UndefinedError):
        page(package, "report.html.jinja", title="Report", subtitle="", verdict="Better.")
