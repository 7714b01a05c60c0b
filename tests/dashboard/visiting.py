"""A browser's requests to the dashboard, without a browser; and a proxy whose record has a past."""

from __future__ import annotations

import re
import time
from collections.abc import Mapping
from pathlib import Path
from urllib.parse import urlencode

from proxy.config import Config, parse
from tests.record.examples import write
from tests.report.examples import find, pair, request, told
from tests.wire import Response, send

ADMIN = "an-admin-key-for-tests"
USER = "a-user-key-for-tests"
KEYS = f"""
auth:
  keys:
    - {{key: {ADMIN}, admin: true, tenant: ops, name: ann}}
    - {{key: {USER}, tenant: acme, name: app}}
"""
HOSTILE = (
    '</pre></textarea><script>document.title="taken"</script><img src=x onerror="document.title=1">'
    '<a href="javascript:document.title=2">here</a><p hx-get="/dashboard/logout" hx-trigger="load">'
    '"><svg onload=alert(1)> {{ 7 * 7 }} \u202egnp.exe\u202c \u2066x\u2069 \x1b[31m \u200b'
)
"""What a model could say to take over a page: markup, a link, htmx' attributes, a template, letters
that turn the direction, a terminal's command."""


def home(url: str) -> str:
    """The dashboard of the proxy with this base URL."""
    return url.removesuffix("/v1") + "/dashboard"


async def get(url: str, path: str = "", **headers: str) -> Response:
    """A page."""
    return await send("GET", home(url) + path, headers=_named(headers))


async def post(url: str, path: str, fields: Mapping[str, str], **headers: str) -> Response:
    """A form that was sent."""
    kind = {"content-type": "application/x-www-form-urlencoded"}
    return await send("POST", home(url) + path, urlencode(fields).encode(), kind | _named(headers))


def _named(headers: Mapping[str, str]) -> dict[str, str]:
    return {name.replace("_", "-"): value for name, value in headers.items()}


def token(page: Response) -> str:
    """What the page's forms carry."""
    found = re.search(r'name="token" value="([^"]+)"', page.content.decode())
    assert found is not None
    return found[1]


def cookie(page: Response) -> str:
    """What a browser sends back."""
    return page.headers["set-cookie"].partition(";")[0]


async def log_in(url: str, key: str = ADMIN) -> Response:
    """The answer to the form with this key."""
    form = await get(url, "/login")
    fields = {"token": token(form), "key": key}
    return await post(url, "/login", fields, cookie=cookie(form))


def with_record(directory: Path, extra: str = "") -> Config:
    """Settings of a home and a cloud that record into a directory."""
    text = (
        "version: 1\nmodels: [gpt-4o]\nbackends:\n"
        "  azure: {kind: openai, base_url: 'http://127.0.0.1:1/v1'}\n"
        "  local: {kind: embedded, base_model: smollm2-135m-instruct}\n"
        "domains: {geo: {plan: [local, azure]}}\ndefaults: {tools: geo, chat: geo}\n"
        f"record: {{directory: record}}\n{extra}\n"
    )
    return parse(text, directory, {})


def with_past(directory: Path) -> None:
    """A record of 40 pairs in the last ten days, 30 of which agree, and a hostile one."""
    records = []
    for n in range(40):
        at = time.time() - (10 - n / 4) * 24 * 60 * 60 + 60 * 60
        local = find("Rome", 3) if n % 4 == 3 else find("Rome")
        records += pair(f"{n}", find("Rome"), local, started_at=at, tenant="acme")
    evil = {"started_at": time.time() - 60, "tenant": "acme", "request": request(HOSTILE)}
    write(directory, *records, *pair("evil", told(HOSTILE), find(HOSTILE), **evil))
