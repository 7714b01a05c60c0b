"""The page in a real browser: no complaint, charts drawn, readable at two widths and in the dark.

Screenshots are kept in build/pages.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from proxy.report.html import html
from tests.report.examples import find, told
from tests.report.test_ab import made
from tests.report.test_figures import PAIRS, pair

EVIL = '</pre><script>document.title = "taken"</script><img src=x onerror="document.title=1">'

SHOTS = Path(__file__).parents[2] / "build" / "pages"

pytestmark = pytest.mark.browser


@pytest.fixture(scope="module")
def file(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A report of 60 pairs, some of them hostile."""
    pairs = [
        pair(f"{n}", find("Rome"), find("Rome", 2 + (n % 7 == 0)), find("Rome"), domain=f"d{n % 3}")
        for n in range(50)
    ]
    evil = pair("evil", find(EVIL), told(EVIL), domain=EVIL, tenant="<b>" + "x" * 300)
    path = tmp_path_factory.mktemp("page") / "report.html"
    path.write_text(html(made([*pairs, *PAIRS, evil])))
    return path


@pytest.mark.parametrize("width", [1280, 400])
@pytest.mark.parametrize("scheme", ["light", "dark"])
def test_the_page_opens_without_complaint_and_fits(browser, file: Path, width: int, scheme: str):
    page = browser.new_page(viewport={"width": width, "height": 900}, color_scheme=scheme)
    complaints: list[str] = []
    asked: list[str] = []
    page.on("console", lambda message: complaints.append(message.text))
    page.on("pageerror", lambda error: complaints.append(str(error)))
    page.on("request", lambda request: asked.append(request.url))

    page.goto(file.as_uri())
    SHOTS.mkdir(parents=True, exist_ok=True)
    page.screenshot(path=SHOTS / f"report-{width}-{scheme}.png", full_page=True)

    charts = page.locator("svg:visible")
    assert complaints == []
    assert [url for url in asked if not url.startswith(("file:", "data:"))] == []
    assert page.title() == "local against azure"
    assert page.locator("script, img").count() == 0
    assert charts.count() == 4
    assert all(_is_drawn(charts.nth(number), width) for number in range(charts.count()))
    assert page.evaluate("document.documentElement.scrollWidth") <= width
    assert page.locator(".verdict").bounding_box()["y"] < 400
    assert _smallest(page) >= 10
    page.close()


def _is_drawn(chart: Any, width: int) -> bool:
    """Marks are in it, and it fills its column."""
    box = chart.bounding_box()
    return chart.locator("path").count() > 5 and box["width"] > min(300, width * 0.7)


def _smallest(page: Any) -> float:
    """Height in pixels of the smallest text that is shown in a chart."""
    return float(
        page.evaluate(
            """() => Math.min(...[...document.querySelectorAll("svg text")]
                .map(text => text.getBoundingClientRect().height).filter(height => height > 0))"""
        )
    )
