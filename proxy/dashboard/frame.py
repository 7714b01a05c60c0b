"""How pages are made and sent: templates that escape everything, and headers that allow little.

What models and clients said is hostile. It is escaped, its invisible letters are shown, htmx does
not look at it, and the policy of the page runs no script and no style that is not a file of ours.
"""

from __future__ import annotations

from collections.abc import Mapping
from datetime import UTC, datetime
from functools import cached_property
from typing import TYPE_CHECKING

import msgspec
from starlette.types import Send

from proxy.endpoints import send_bytes
from proxy.protocol.visible import shown

if TYPE_CHECKING:
    from jinja2 import Environment

POLICY = (
    "default-src 'none'; script-src 'self'; style-src 'self'; img-src 'self' data:;"
    " connect-src 'self'; form-action 'self'; base-uri 'none'; frame-ancestors 'none'"
)
HEADERS = {
    "content-security-policy": POLICY,
    "x-content-type-options": "nosniff",
    "x-frame-options": "DENY",
    # Not no-referrer: with that, browsers send forms with the origin `null`.
    "referrer-policy": "same-origin",
    "cross-origin-opener-policy": "same-origin",
    "cross-origin-resource-policy": "same-origin",
    "permissions-policy": "camera=(), geolocation=(), microphone=()",
}
PRIVATE = {**HEADERS, "cache-control": "no-store"}
"""Headers of whatever says something of the traffic."""
_HTML = "text/html; charset=utf-8"
_DASH = "–"


class Frame:
    """Fills templates. Made once."""

    def __init__(self, stamps: Mapping[str, str]) -> None:
        """`stamps`: of the static files."""
        self._stamps = stamps

    @cached_property
    def _templates(self) -> Environment:
        # Made for the first page, as it takes Jinja: most workers never show one.
        from importlib.metadata import version

        from jinja2 import Environment, PackageLoader, StrictUndefined

        made = Environment(
            loader=PackageLoader("proxy.dashboard"),
            autoescape=True,
            undefined=StrictUndefined,
            trim_blocks=True,
            lstrip_blocks=True,
        )
        made.filters.update(
            shown=shown,
            json=lambda value: msgspec.json.encode(value).decode(),
            count=count,
            rate=rate,
            share=share,
            seconds=seconds,
            figure=figure,
            dollars=dollars,
            moment=moment,
            words=lambda code: str(code).replace("_", " "),
        )
        made.globals.update(version=version("headrace"), stamps=self._stamps)
        return made

    def part(self, template: str, **values: object) -> bytes:
        """The HTML of a part of a page, with these values, all of them escaped."""
        return self._templates.get_template(template).render(**values).encode()

    def page(
        self, template: str, visitor: object = None, token: str = "", **values: object
    ) -> bytes:
        """A whole page; `token` is what its forms carry."""
        return self.part(template, visitor=visitor, token=token, **values)


async def send_page(
    send: Send, content: bytes, status: int = 200, headers: Mapping[str, str] | None = None
) -> None:
    """Send HTML."""
    await send_bytes(send, content, {"content-type": _HTML, **PRIVATE, **(headers or {})}, status)


# ---------------------------------------------------------------- values as people read them


def count(number: float) -> str:
    """A number with thin spaces between thousands."""
    return f"{number:,.0f}".replace(",", "\u202f")


def figure(number: float) -> str:
    """A number of any size: whole ones in full, others with four digits at most."""
    return count(number) if number == round(number) or abs(number) >= 1000 else f"{number:.4g}"


def rate(number: float) -> str:
    """So many a second."""
    return f"{number:.1f}" if number >= 0.05 or number == 0 else f"{number:.3f}"


def share(number: float | None) -> str:
    """Percent; a dash where there is nothing to tell."""
    return _DASH if number is None else f"{100 * number:.1f} %"


def seconds(number: float | None) -> str:
    """Milliseconds or seconds."""
    if number is None:
        return _DASH
    return f"{1000 * number:.0f} ms" if number < 1 else f"{number:.2f} s"


def dollars(number: float | None) -> str:
    """An amount; small ones with four digits."""
    if number is None:
        return _DASH
    sign = "-" if number < 0 else ""
    return f"{sign}${abs(number):,.{4 if 0 < abs(number) < 0.1 else 2}f}"


def moment(at: float) -> str:
    """Date and time, UTC."""
    return f"{datetime.fromtimestamp(at, UTC):%Y-%m-%d %H:%M:%S}"
