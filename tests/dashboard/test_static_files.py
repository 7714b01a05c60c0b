"""The files of the front end: what is sent, and that it is what the lock names."""

from __future__ import annotations

import fnmatch
import hashlib
import json
import tomllib
from importlib.resources import files
from pathlib import Path

import pytest

from proxy.dashboard.static_files import StaticFiles
from tests.dashboard.visiting import KEYS, get
from tests.serving import Engine, serving_with, settings

ROOT = Path(__file__).parents[2]
VENDOR = ROOT / "proxy" / "dashboard" / "static" / "vendor"


@pytest.mark.parametrize(
    ("name", "kind"),
    [
        ("dashboard.css", "text/css; charset=utf-8"),
        ("charts.js", "text/javascript; charset=utf-8"),
        ("vendor/htmx.min.js", "text/javascript; charset=utf-8"),
        ("icon.svg", "image/svg+xml"),
    ],
)
async def test_files_are_sent_to_whoever_sees_the_form(name: str, kind: str):
    async with serving_with(settings("local", extra=KEYS), Engine("local", [])) as url:
        file = await get(url, f"/static/{name}")

    assert (file.status, file.headers["content-type"]) == (200, kind)
    assert "immutable" in file.headers["cache-control"]
    assert file.headers["x-content-type-options"] == "nosniff"


@pytest.mark.parametrize(
    "name", ["nonsense.js", "../frame.py", "..%2fframe.py", "vendor/htmx.LICENSE.txt", ""]
)
async def test_nothing_else_is_sent(name: str):
    async with serving_with(settings("local", extra=KEYS), Engine("local", [])) as url:
        file = await get(url, f"/static/{name}")

    assert file.status in (303, 404)
    assert b"Frame" not in file.content


def test_address_changes_with_the_content():
    stamps = StaticFiles().stamps

    content = (files("proxy.dashboard") / "static" / "dashboard.css").read_bytes()
    assert stamps["dashboard.css"] == hashlib.sha256(content).hexdigest()[:12]


def test_wheel_has_all_files():
    """Each file of the package's folders is one that pyproject.toml names."""
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())
    patterns = project["tool"]["setuptools"]["package-data"]["proxy.dashboard"]
    package = ROOT / "proxy" / "dashboard"
    found = [
        path.relative_to(package).as_posix()
        for folder in ("static", "templates")
        for path in (package / folder).rglob("*")
        if path.is_file()
    ]

    def has(name: str, pattern: str) -> bool:
        return fnmatch.fnmatch(name, pattern) and name.count("/") == pattern.count("/")

    assert len(found) > 15
    assert [name for name in found if not any(has(name, one) for one in patterns)] == []


def test_what_is_of_others_has_its_licence_and_a_pinned_version():
    lock = json.loads((ROOT / "scripts" / "front_end" / "package-lock.json").read_text())
    packages = {
        name.removeprefix("node_modules/"): one for name, one in lock["packages"].items() if name
    }

    assert {one["license"] for one in packages.values()} <= {"BSD-0-Clause", "MIT", "MPL-2.0"}
    assert all(one["integrity"].startswith("sha512-") for one in packages.values())
    assert packages["axe-core"]["dev"]
    assert "Zero-Clause BSD" in (VENDOR / "htmx.LICENSE.txt").read_text()
    assert "MIT License" in (VENDOR / "uPlot.LICENSE.txt").read_text()
    assert packages["htmx.org"]["version"] in (VENDOR / "htmx.min.js").read_text()


def test_front_end_is_small():
    sizes = {path.name: path.stat().st_size for path in VENDOR.iterdir()}

    assert sum(sizes.values()) < 100_000
