"""The page of costs in a real browser: no complaint, fits, says its sentence at once.

Screenshots are kept in build/pages.
"""

from __future__ import annotations

from datetime import UTC, datetime
from pathlib import Path

import pytest

pytest.importorskip("matplotlib", reason="needs the train extra")

from proxy.protocol.prices import PRICES
from trainer.costs.case import Case
from trainer.costs.claims import claims
from trainer.costs.page import html
from trainer.costs.reckoning import reckon

NOW = datetime(2026, 11, 22, tzinfo=UTC).timestamp()
SHOTS = Path(__file__).parents[3] / "build" / "pages"

pytestmark = pytest.mark.browser


@pytest.fixture(scope="module")
def file(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("page") / "costs.html"
    path.write_text(html(reckon(Case(), PRICES, NOW), claims(), PRICES, NOW))
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
    page.screenshot(path=SHOTS / f"costs-{width}-{scheme}.png", full_page=True)

    assert complaints == []
    assert [url for url in asked if not url.startswith(("file:", "data:"))] == []
    assert page.locator("script, img").count() == 0
    assert page.locator("svg:visible").count() == 1
    assert page.evaluate("document.documentElement.scrollWidth") <= width
    assert page.locator(".verdict").bounding_box()["y"] < 400
    page.close()
