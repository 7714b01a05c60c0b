"""An evaluation's page in a real browser: no complaint, fits, says its verdict at once.

Screenshots are kept in build/pages.
"""

from __future__ import annotations

from pathlib import Path

import pytest

pytest.importorskip("matplotlib", reason="needs the train extra")

from tests.trainer.report.test_evaluation import twin
from trainer.figures import Figure
from trainer.report.evaluation import Version, write

SHOTS = Path(__file__).parents[3] / "build" / "pages"

pytestmark = pytest.mark.browser


@pytest.fixture(scope="module")
def file(tmp_path_factory: pytest.TempPathFactory) -> Path:
    history = [Version(name=f"api-v{n}", figure=Figure.of(40 + 9 * n, 100)) for n in range(1, 6)]
    return write(twin(history=history), tmp_path_factory.mktemp("page"))


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
    page.screenshot(path=SHOTS / f"evaluation-{width}-{scheme}.png", full_page=True)

    assert complaints == []
    assert [url for url in asked if not url.startswith(("file:", "data:"))] == []
    assert page.title() == "api-v2: refuse"
    assert page.locator("script, img").count() == 0
    assert page.locator("svg:visible").count() == 7
    assert page.evaluate("document.documentElement.scrollWidth") <= width
    assert page.locator(".verdict").bounding_box()["y"] < 400
    page.close()
