"""The pages of a real proxy with a record, as HTML; a browser looks at them in test_in_browser."""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from urllib.parse import urlencode

import pytest

from proxy.sinks.memory import MemorySink
from tests.dashboard.visiting import HOSTILE, get, post, token, with_past, with_record
from tests.serving import Engine, serving_with
from tests.serving import settings as plain


@pytest.fixture(scope="module")
def past(tmp_path_factory: pytest.TempPathFactory) -> Path:
    directory = tmp_path_factory.mktemp("past")
    with_past(directory / "record")
    return directory


@asynccontextmanager
async def site(past: Path, sink: MemorySink | None = None) -> AsyncIterator[str]:
    config = with_record(past, "dashboard: {cache_s: 300}")
    engines = Engine("local", []), Engine("azure", [])
    async with serving_with(config, *engines, sink=sink) as url:
        yield url


@pytest.fixture
async def url(past: Path) -> AsyncIterator[str]:
    async with site(past) as url:
        yield url


EVIL = "/exchange?" + urlencode({"id": "evil", "tenant": "acme"})
ONE = "/exchange?" + urlencode({"id": "3", "tenant": "acme"})


async def test_what_a_model_said_is_shown_and_does_nothing(url: str):
    page = (await get(url, EVIL)).content.decode()

    assert page.count("&lt;script&gt;document.title=") >= 3
    for tag in ("<script>", "<img src=x", "<svg onload", '<a href="javascript', "<p hx-get"):
        assert tag not in page
    assert "\u202e" not in page and "\u2066" not in page and "\x1b" not in page
    assert "U+202E" in page and "U+2066" in page
    assert "{{ 7 * 7 }}" in page


async def test_list_does_nothing_either(url: str):
    asked = urlencode({"text": "<script>", "tenant": "acme", "page": "nonsense"})
    page = (await get(url, f"/exchanges?{asked}")).content.decode()

    assert page.count("&lt;script&gt;") == 2 and "<script>" not in page


async def test_form_is_taken_where_it_is_right(past: Path):
    sink = MemorySink()
    async with site(past, sink) as url:
        page = await get(url, ONE)
        form = {"token": token(page), "id": "3", "tenant": "acme", "kind": "demonstration"}
        wrong = '[{"name": "find", "arguments": {"city": 7}}]'

        refused = await post(url, "/feedback", form | {"calls": wrong, "text": HOSTILE})
        elsewhere = await post(url, "/feedback", form | {"tenant": "other", "calls": wrong})
        before = list(sink.feedback)
        taken = await post(url, "/feedback", form | {"calls": wrong.replace("7", '"Paris"')})

    content = refused.content.decode()
    assert [refused.status, elsewhere.status, before] == [400, 404, []]
    assert "does not allow these calls" in content
    assert "&#34;city&#34;: 7" in content and "<script>document" not in content
    assert taken.status == 303
    (given,) = sink.feedback
    assert (given.tenant, given.exchange, given.kind) == ("acme", "3", "demonstration")
    assert given.value.tool_calls[0].function.arguments == '{"city":"Paris"}'
    assert taken.headers["location"].endswith(f"&given={given.id}")


@pytest.mark.parametrize(
    ("path", "told"),
    [
        ("/traffic?hours=720", "azure"),
        ("/savings?hours=720", "Nothing was answered at home"),
        ("/agreement?hours=720", "30 days"),
        ("/adapters", "No domain has an adapter"),
        ("", "Overview"),
    ],
)
async def test_pages_say_what_there_is(url: str, path: str, told: str):
    page = await get(url, path)

    assert page.status == 200 and told in page.content.decode()


async def test_page_of_the_menu_is_marked(url: str):
    page = (await get(url, "/adapters")).content.decode()

    assert '<a href="/dashboard/adapters" aria-current="page">' in page
    assert page.count("aria-current") == 1


async def test_without_a_record_pages_say_so():
    async with serving_with(plain("local"), Engine("local", [])) as url:
        pages = [await get(url, path) for path in ("/exchanges", "/agreement", "/traffic")]

    assert all("`record` section" in page.content.decode() for page in pages)


async def test_address_that_cannot_be_read_is_refused(url: str):
    many = "&".join(f"f{n}=" for n in range(99))
    assert (await get(url, f"/exchanges?{many}x")).status in (200, 400)
    assert (await get(url, "/exchanges?" + "&".join(f"f{n}=1" for n in range(99)))).status == 400
    assert (await post(url, "/adapters", {})).status == 405
