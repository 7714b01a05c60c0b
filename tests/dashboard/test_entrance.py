"""Who gets in, and how: keys, sessions, forms that other sites send."""

from __future__ import annotations

import re

import pytest

from proxy.app import assemble
from proxy.auth import Authenticator
from proxy.catalog import Catalog
from proxy.keys.base import Key
from tests.dashboard.visiting import ADMIN, KEYS, USER, cookie, get, home, log_in, post, token
from tests.serving import Engine, listening, serving_with, settings
from tests.wire import raw, send


def engine() -> Engine:
    return Engine("local", [])


@pytest.fixture
async def url():
    async with serving_with(settings("local", extra=KEYS), engine()) as url:
        yield url


# ---------------------------------------------------------------- with keys


async def test_whoever_has_no_session_is_sent_to_the_form(url: str):
    page = await get(url)

    assert (page.status, page.headers["location"]) == (303, "/dashboard/login")


async def test_a_part_of_a_page_sends_the_whole_page_to_the_form(url: str):
    part = await get(url, "/live", hx_request="true")

    assert (part.status, part.headers["hx-redirect"]) == (401, "/dashboard/login")


@pytest.mark.parametrize(("key", "status"), [(ADMIN, 200), (USER, 403), ("unknown-key-16-xx", 401)])
async def test_key_in_a_header_is_taken_as_everywhere(url: str, key: str, status: int):
    page = await get(url, authorization=f"Bearer {key}")

    assert page.status == status
    assert page.headers["content-type"].startswith("text/html")


async def test_admin_logs_in_and_out(url: str):
    entered = await log_in(url)
    session = cookie(entered)
    page = await get(url, cookie=session)
    left = await post(url, "/logout", {"token": token(page)}, cookie=session)

    assert (entered.status, entered.headers["location"]) == (303, "/dashboard")
    assert page.status == 200 and b"ops / ann" in page.content
    assert (left.status, cookie(left)) == (303, "headrace_session=")
    assert "Max-Age=0" in left.headers["set-cookie"]


async def test_cookie_is_out_of_reach_of_scripts_and_other_sites(url: str):
    entered = await log_in(url)
    form = await get(url, "/login", x_forwarded_proto="https")

    attributes = set(entered.headers["set-cookie"].split("; ")[1:])
    assert {"HttpOnly", "SameSite=Strict", "Path=/dashboard", "Max-Age=28800"} == attributes
    assert ADMIN not in entered.headers["set-cookie"]
    assert "Secure" in form.headers["set-cookie"]


@pytest.mark.parametrize("key", [USER, "unknown-key-16-xx", ""])
async def test_other_keys_do_not_log_in(url: str, key: str):
    refused = await log_in(url, key)

    assert refused.status == 403
    assert "headrace_session" not in refused.headers["set-cookie"]
    assert key == "" or key.encode() not in refused.content


async def test_wrong_keys_are_limited(url: str):
    tried = [(await log_in(url, "unknown-key-16-xx")).status for _ in range(11)]
    right = await log_in(url)

    assert tried == [403] * 10 + [429]
    assert right.status == 429 and right.headers["retry-after"] == "60"


async def test_session_ends_with_its_key():
    auth = Authenticator([Key(key=ADMIN, admin=True)])
    proxy = assemble(settings("local"), Catalog({"local": engine()}, {}), None, auth=auth)

    async with listening(proxy.app) as url:
        session = cookie(await log_in(url))
        before = await get(url, cookie=session)
        auth.know([Key(key=ADMIN)])
        no_admin = await get(url, cookie=session)
        auth.know([])
        revoked = await get(url, cookie=session)

    assert [page.status for page in (before, no_admin, revoked)] == [200, 303, 303]


async def test_session_outlives_a_change_of_the_settings():
    """The secret is given, or the record's: a proxy that takes over knows the sessions."""
    extra = f"{KEYS}dashboard: {{secret: a-secret-of-16-or-more}}"
    async with serving_with(settings("local", extra=extra), engine()) as former:
        session = cookie(await log_in(former))
    async with serving_with(settings("local", extra=extra), engine()) as other:
        page = await get(other, cookie=session)

    assert page.status == 200


# ---------------------------------------------------------------- forged forms


async def test_form_without_its_token_is_refused(url: str):
    session = cookie(await log_in(url))
    for given in ({}, {"token": ""}, {"token": "wrong"}, {"token": "ü"}):
        for path in ("/feedback", "/logout"):
            refused = await post(url, path, given, cookie=session)

            assert refused.status == 403
            assert "set-cookie" not in refused.headers


async def test_token_of_another_session_is_refused(url: str):
    ours, theirs = cookie(await log_in(url)), cookie(await log_in(url))
    given = token(await get(url, cookie=theirs))

    refused = await post(url, "/logout", {"token": given}, cookie=ours)

    assert refused.status == 403


async def test_form_to_log_in_belongs_to_the_browser_that_asked_for_it(url: str):
    form, other = await get(url, "/login"), await get(url, "/login")
    fields = {"token": token(form), "key": ADMIN}

    assert (await post(url, "/login", fields)).status == 403
    assert (await post(url, "/login", fields, cookie=cookie(other))).status == 403


@pytest.mark.parametrize(
    ("headers", "status"),
    [
        ({"sec_fetch_site": "same-origin"}, 303),
        ({"sec_fetch_site": "same-origin", "origin": "https://front.example"}, 303),
        ({"sec_fetch_site": "cross-site"}, 403),
        ({"sec_fetch_site": "same-site"}, 403),
        ({"origin": "https://evil.example"}, 403),
        ({"origin": "null"}, 403),
        ({"origin": "http://["}, 403),
    ],
)
async def test_form_of_another_site_is_refused(url: str, headers: dict[str, str], status: int):
    session = cookie(await log_in(url))
    given = token(await get(url, cookie=session))

    answer = await post(url, "/logout", {"token": given}, cookie=session, **headers)

    assert answer.status == status


async def test_form_is_bounded(url: str):
    session = cookie(await log_in(url))

    large = await post(url, "/feedback", {"text": "x" * 300_000}, cookie=session)
    many = await post(url, "/feedback", {f"f{n}": "" for n in range(99)}, cookie=session)
    binary = await send("POST", home(url) + "/feedback", b"\xff\xfe", {"cookie": session})

    assert [answer.status for answer in (large, many, binary)] == [413, 400, 400]


# ---------------------------------------------------------------- without keys


async def test_without_keys_this_machine_gets_in():
    async with serving_with(settings("local"), engine()) as url:
        page = await get(url)

    assert page.status == 200
    assert b"Log out" not in page.content


@pytest.mark.parametrize(
    "host", ["evil.example", "10.0.0.1:8080", "", "localhost.evil.example", "["]
)
async def test_without_keys_a_name_from_elsewhere_is_refused(host: str):
    """A page from elsewhere whose name was made to lead here could read along."""
    async with serving_with(settings("local"), engine()) as url:
        request = f"GET /dashboard HTTP/1.1\r\nhost: {host}\r\nconnection: close\r\n\r\n"
        page = await raw(url, request.encode())

    assert page.status == 403


async def test_without_keys_forms_need_their_token_all_the_same():
    async with serving_with(settings("local"), engine()) as url:
        refused = await post(url, "/feedback", {"kind": "boolean"})

    assert refused.status == 403


async def test_dashboard_can_be_left_out():
    config = settings("local", extra="dashboard: {enabled: false}")
    async with serving_with(config, engine()) as url:
        page = await get(url)

    assert page.status == 404


# ---------------------------------------------------------------- headers


PAGES = ["", "/adapters", "/runs", "/exchanges", "/agreement", "/login", "/nonsense", "/live.json"]


@pytest.mark.parametrize("path", PAGES)
async def test_every_answer_forbids_scripts_that_are_no_files(path: str):
    async with serving_with(settings("local"), engine()) as url:
        page = await get(url, path)

    policy = dict(
        part.split(maxsplit=1) for part in page.headers["content-security-policy"].split("; ")
    )
    assert policy["default-src"] == policy["frame-ancestors"] == policy["base-uri"] == "'none'"
    assert policy["script-src"] == policy["style-src"] == policy["form-action"] == "'self'"
    assert "unsafe" not in page.headers["content-security-policy"]
    assert page.headers["x-content-type-options"] == "nosniff"
    assert page.headers["cache-control"] == "no-store"


@pytest.mark.parametrize("path", PAGES[:-1])
async def test_pages_have_no_script_or_style_of_their_own(path: str):
    async with serving_with(settings("local"), engine()) as url:
        content = (await get(url, path)).content.decode()

    assert re.findall(r"<script(?![^>]* src=\"/dashboard/static/)", content) == []
    assert re.findall(r"<style|\sstyle=|\son\w+=|javascript:", content) == []
    assert re.findall(r"https?://", content) == []
