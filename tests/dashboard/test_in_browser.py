"""The dashboard in a real browser: every page, at three widths, light and dark, without complaint.

A real proxy with a record on the disk and shipped adapters; a scripted cloud answers, and is asked
again in its own shadow. What it says is hostile. axe looks at each page; it is no dependency, `make
test-pages` fetches it. Screenshots are kept in build/pages.
"""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any
from urllib.parse import urlencode

import pytest

from proxy.protocol import segments
from proxy.protocol.exchange import Exchange
from proxy.protocol.feedback import Feedback
from tests.dashboard import test_runs
from tests.dashboard.visiting import ADMIN, HOSTILE, home, with_past

pytest.importorskip("openvino_genai", reason="needs the embedded extra")
pytestmark = pytest.mark.browser

ROOT = Path(__file__).parents[2]
SHOTS = ROOT / "build" / "pages"
AXE = ROOT / "scripts" / "front_end" / "node_modules" / "axe-core" / "axe.min.js"
WIDTHS = (400, 1280, 1920)
SCHEMES = ("light", "dark")


class Served:
    """A proxy in a process of its own (tests/dashboard/served.py)."""

    def __init__(self, directory: Path, process: subprocess.Popen[str]) -> None:
        assert process.stdout is not None
        self.directory = directory
        # What it logs comes before.
        lines = (line.strip() for line in process.stdout)
        self.url = next((line for line in lines if line.startswith("http://")), "")
        assert self.url, "the proxy did not start"

    @property
    def records(self) -> list[Any]:
        """What is on the disk."""
        paths = segments.segments(self.directory / "record")
        return [record for path in paths for record in segments.read_segment(path)]


@pytest.fixture(scope="module")
def served(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Served]:
    if not AXE.exists():
        pytest.skip("needs axe-core: make test-pages")
    directory = tmp_path_factory.mktemp("served")
    with_past(directory / "record")
    test_runs.write(
        directory / "runs",
        "geo",
        "20260101-1",
        test_runs.VERDICT,
        outcome="promoted",
        adapter="geo-v8",
        cause=HOSTILE,
    )
    command = [sys.executable, "-m", "tests.dashboard.served", str(directory)]
    pipe = subprocess.PIPE
    with subprocess.Popen(command, stdin=pipe, stdout=pipe, text=True, cwd=ROOT) as process:
        yield Served(directory, process)
        # It stops when nobody holds its standard input any more; what it says then is not read.
        process.communicate()


class Watched:
    """A page that keeps what a browser complains of, and where it went."""

    def __init__(self, context: Any) -> None:
        self.page = context.new_page()
        self.complaints: list[str] = []
        self.asked: list[str] = []
        self.page.set_default_timeout(300_000)
        self.page.on("console", lambda message: self.complaints.append(message.text))
        self.page.on("pageerror", lambda error: self.complaints.append(str(error)))
        self.page.on("dialog", lambda dialog: self.complaints.append(dialog.message))
        self.page.on("request", lambda request: self.asked.append(request.url))

    def violations(self) -> list[str]:
        """What axe finds serious, each with where."""
        # Into a world of its own: the page's policy lets no script in, and that is right.
        self.page.evaluate(AXE.read_text())
        found = self.page.evaluate(
            "async () => (await axe.run(document, {resultTypes: ['violations']})).violations"
        )
        return [
            f"{one['id']}: {node['target']} {node.get('failureSummary', '')}"
            for one in found
            if one["impact"] in ("serious", "critical")
            for node in one["nodes"]
        ]


@pytest.fixture(scope="module")
def storage(browser: Any, served: Served) -> Any:
    """What a browser keeps that has logged in through the form, with the keyboard."""
    context = browser.new_context()
    page = context.new_page()
    page.set_default_timeout(300_000)
    page.goto(home(served.url))
    assert page.url.endswith("/dashboard/login")
    page.keyboard.type(ADMIN)
    page.keyboard.press("Enter")
    page.wait_for_url("**/dashboard")
    state = context.storage_state()
    context.close()
    return state


EVIL = "/exchange?" + urlencode({"id": "evil", "tenant": "acme"})
PAGES = {
    "overview": "?hours=720",
    "agreement": "/agreement",
    "adapters": "/adapters",
    "runs": "/runs",
    "run": "/run?domain=geo&id=20260101-1",
    "exchanges": "/exchanges",
    "exchange": EVIL,
    "not-here": "/nonsense",
    "login": "/login",
}


@pytest.mark.parametrize("name", PAGES)
def test_page_is_whole_at_every_width_and_in_both_colours(
    browser: Any, served: Served, storage: Any, name: str
):
    SHOTS.mkdir(parents=True, exist_ok=True)
    context = browser.new_context(storage_state=storage)
    watched = Watched(context)
    page = watched.page
    page.goto(home(served.url) + PAGES[name])
    _settle(page, name)
    complaints = watched.complaints if name != "not-here" else []

    for scheme in SCHEMES:
        page.emulate_media(color_scheme=scheme)
        for width in WIDTHS:
            page.set_viewport_size({"width": width, "height": 900})
            page.wait_for_timeout(100)
            page.screenshot(path=SHOTS / f"dashboard-{name}-{width}-{scheme}.png", full_page=True)
            assert page.evaluate("document.documentElement.scrollWidth") <= width
        assert watched.violations() == []

    assert complaints == []
    assert [url for url in watched.asked if not url.startswith(home(served.url))] == []
    assert "Headrace" in page.title() and "taken" not in page.title()
    context.close()


def _settle(page: Any, name: str) -> None:
    """Until all that a page fetches by itself is there."""
    if name == "overview":
        page.wait_for_selector("#traffic table")
        page.wait_for_selector("#savings > :not([role=status])")
        page.locator(".chart canvas").nth(2).wait_for()
    if name == "agreement":
        page.wait_for_selector(".chart canvas")


def test_correction_is_found_in_the_record(browser: Any, served: Served, storage: Any):
    context = browser.new_context(storage_state=storage)
    watched = Watched(context)
    page = watched.page
    page.goto(home(served.url) + "/exchanges")
    page.get_by_label("Text or id").fill("Find 1")
    page.locator("#list tbody tr").nth(1).wait_for(state="detached")
    page.locator("#list tbody a").click()
    page.get_by_label("Calls").fill('[{"name": "find", "arguments": {"city": 7}}]')
    page.get_by_role("button", name="Keep the correction").click()
    page.get_by_role("alert").wait_for()
    assert "does not allow these calls" in page.get_by_role("alert").inner_text()
    page.get_by_label("Calls").fill('[{"name": "find", "arguments": {"city": "Rome"}}]')
    page.get_by_role("button", name="Keep the correction").click()
    page.get_by_text("Taken: feedback-").wait_for()
    page.get_by_label("Comment").fill(HOSTILE)
    page.get_by_role("button", name="Keep the comment").click()
    page.get_by_text("Taken: feedback-").wait_for()
    while page.locator(".judgement").count() < 2:
        page.reload()
    judged = page.locator(".judgement").all_inner_texts()
    context.close()

    said = [one for one in served.records if isinstance(one, Feedback)]
    correction, comment = said
    asked = next(
        one for one in served.records if isinstance(one, Exchange) and one.id == correction.exchange
    )
    assert asked.tenant == correction.tenant == comment.tenant == "ops"
    assert correction.value.tool_calls[0].function.arguments == '{"city":"Rome"}'
    assert correction.caller == "ann"
    assert len(judged) == 2 and "Rome" in "".join(judged)
    # The browser says of the refused form what its status was, and nothing else of anything.
    assert [one for one in watched.complaints if "status of 400" not in one] == []
    assert page.title != "taken"


def test_what_a_model_said_does_nothing(browser: Any, served: Served, storage: Any):
    context = browser.new_context(storage_state=storage)
    watched = Watched(context)
    page = watched.page
    page.goto(home(served.url) + EVIL)
    page.wait_for_timeout(500)

    assert page.title().startswith("Exchange")
    assert page.locator("main script, main img, main svg").count() == 0
    assert page.locator("main a[href^=javascript], main [onerror], main p[hx-get]").count() == 0
    assert page.locator("body").inner_text().count("<script>") >= 2
    assert not [url for url in watched.asked if "logout" in url or "/x" in url]
    assert watched.complaints == []
    context.close()


def test_keyboard_reaches_the_content_and_the_colours_stay(
    browser: Any, served: Served, storage: Any
):
    context = browser.new_context(storage_state=storage, color_scheme="light")
    page = context.new_page()
    page.set_default_timeout(300_000)
    page.goto(home(served.url) + "/adapters")
    page.keyboard.press("Tab")
    assert page.evaluate("document.activeElement.textContent") == "To the content"
    page.keyboard.press("Enter")
    assert page.evaluate("document.activeElement.id") == "main"
    light = page.evaluate("getComputedStyle(document.body).backgroundColor")
    page.get_by_label("Colours").select_option("dark")
    dark = page.evaluate("getComputedStyle(document.body).backgroundColor")
    page.goto(home(served.url) + "/runs")

    assert page.evaluate("getComputedStyle(document.body).backgroundColor") == dark != light
    page.get_by_role("button", name="Log out").click()
    page.wait_for_url("**/dashboard/login")
    page.goto(home(served.url) + "/runs")
    assert page.url.endswith("/dashboard/login")
    context.close()
