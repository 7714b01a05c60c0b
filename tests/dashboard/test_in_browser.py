"""The dashboard in a real browser: every page, at three widths, light and dark, without complaint.

A real proxy with a record on the disk: a scripted cloud answers, the embedded model is asked in its
shadow, and what a model said is hostile. axe looks at each page; it is no dependency, `make
test-pages` fetches it. Screenshots are kept in build/pages.
"""

from __future__ import annotations

import asyncio
import threading
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any
from urllib.parse import urlencode

import msgspec
import pytest

from proxy.config import load
from proxy.dashboard import live
from proxy.protocol import segments
from proxy.protocol.exchange import Exchange
from proxy.protocol.feedback import Feedback
from tests.dashboard import test_runs
from tests.dashboard.visiting import ADMIN, HOSTILE, KEYS, home, with_past
from tests.scripted import KEPT, ScriptedCloud, answer, completion, reachable
from tests.serving import serving
from tests.wire import send

pytest.importorskip("openvino_genai", reason="needs the embedded extra")
pytestmark = pytest.mark.browser

ROOT = Path(__file__).parents[2]
SHOTS = ROOT / "build" / "pages"
AXE = ROOT / "scripts" / "front_end" / "node_modules" / "axe-core" / "axe.min.js"
WIDTHS = (400, 1280, 1920)
SCHEMES = ("light", "dark")
TOOL = {
    "type": "function",
    "function": {
        "name": "find",
        "parameters": {
            "type": "object",
            "properties": {"city": {"type": "string"}},
            "required": ["city"],
        },
    },
}
ROUTES = """
version: 1
models: [gpt-4o]
backends:
  azure: {{kind: openai, base_url: '{cloud}'}}
  local: {{kind: embedded, base_model: smollm2-135m-instruct, adapters: '{adapters}'}}
domains:
  geo: {{plan: [azure], tools: [find], shadow: {{to: local, share: 1, deadline_s: 600}}}}
  api: {{plan: [local, azure]}}
defaults: {{tools: geo, chat: api}}
record: {{directory: record, sync_s: 0.05}}
dashboard: {{runs: runs, read_timeout_s: 300, cache_s: 1}}
{keys}
"""


class Served:
    """A proxy in a thread with an event loop of its own, and where it is."""

    def __init__(self, directory: Path) -> None:
        self.directory = directory
        self.url = ""
        self._loop = asyncio.new_event_loop()
        self._up = threading.Event()
        self._over = asyncio.Event()
        self._thread = threading.Thread(target=self._loop.run_until_complete, args=[self._run()])

    def __enter__(self) -> Served:
        self._thread.start()
        assert self._up.wait(600)
        return self

    def __exit__(self, *_: object) -> None:
        self._loop.call_soon_threadsafe(self._over.set)
        self._thread.join()

    async def _run(self) -> None:
        async with _busy(self.directory) as url:
            self.url = url
            self._up.set()
            await self._over.wait()

    @property
    def records(self) -> list[Any]:
        """What is on the disk."""
        paths = segments.segments(self.directory / "record")
        return [record for path in paths for record in segments.read_segment(path)]


@asynccontextmanager
async def _busy(directory: Path) -> AsyncIterator[str]:
    """A proxy that has answered a few requests, one of them in a hostile way, each with a shadow."""
    call = {"name": "find", "arguments": msgspec.json.encode({"city": HOSTILE}).decode()}
    calls = [{"id": "call_1", "type": "function", "function": call}]
    said = completion({"role": "assistant", "content": None, "tool_calls": calls}, "tool_calls")
    cloud = ScriptedCloud()
    for number in range(4):
        cloud.plays(answer(said | {"id": f"chatcmpl-{number}"}, KEPT))
    async with reachable(cloud):
        keys = KEYS.replace("name: app", "name: app, models: [gpt-4o]")
        text = ROUTES.format(cloud=cloud.base_url, adapters=ROOT / "adapters", keys=keys)
        (directory / "routes.yaml").write_text(text)
        async with serving(load(directory / "routes.yaml")) as url:
            for number in range(4):
                await _ask(url, f"Find {number} {HOSTILE}", [TOOL])
            await _shadowed(url, 4)
            yield url


async def _ask(url: str, question: str, tools: list[object]) -> None:
    body = {"model": "gpt-4o", "messages": [{"role": "user", "content": question}], "tools": tools}
    headers = {"authorization": f"Bearer {ADMIN}"}
    answered = await send("POST", f"{url}/chat/completions", msgspec.json.encode(body), headers)
    assert answered.status == 200


async def _shadowed(url: str, count: int) -> None:
    async with asyncio.timeout(600):
        while True:
            headers = {"authorization": f"Bearer {ADMIN}"}
            ready = await send("GET", url.replace("/v1", "/ready"), headers=headers)
            if sum(ready.json["shadows"]["geo"]["outcomes"].values()) >= count:
                return
            await asyncio.sleep(0.2)


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
    former, live.LOOK_S = live.LOOK_S, 0.5
    with Served(directory) as served:
        yield served
    live.LOOK_S = former


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


EVIL = "/exchange?" + urlencode({"id": "chatcmpl-0", "tenant": "ops"})
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
        page.wait_for_function("document.querySelectorAll('.chart canvas').length === 3")
    if name == "agreement":
        page.wait_for_selector(".chart canvas")


def test_correction_is_found_in_the_record(browser: Any, served: Served, storage: Any):
    context = browser.new_context(storage_state=storage)
    watched = Watched(context)
    page = watched.page
    page.goto(home(served.url) + "/exchanges")
    page.get_by_label("Text or id").fill("Find 1")
    page.wait_for_function("document.querySelectorAll('#list tbody tr').length === 1")
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
    page.wait_for_function(
        "async () => (await (await fetch(location.href)).text()).includes('comment</p>')"
    )
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
