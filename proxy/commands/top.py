"""headrace top: what a running proxy does now, from its /metrics. Needs the extra `top`."""

from __future__ import annotations

import argparse
import os
import time
import urllib.error
import urllib.request
from collections.abc import Iterator, Sequence
from typing import TYPE_CHECKING
from urllib.parse import urlsplit

import msgspec
from prometheus_client.parser import text_string_to_metric_families

from proxy.beside import missing
from proxy.commands.shared import Commands
from proxy.dashboard.frame import count, rate, seconds
from proxy.dashboard.live import Counts, Live, between, counts
from proxy.errors import BadConfig, CannotStart
from proxy.protocol.visible import shown

if TYPE_CHECKING:
    from rich.console import Console
    from rich.table import Table

KEY = "HEADRACE_KEY"
"""Environment variable with an admin's key."""
_TIMEOUT_S = 10
_LARGEST = 64 * 1024 * 1024
"""Bytes of a page of metrics that are read."""
_EPILOG = f"""\
The key of an admin is read from the environment variable {KEY}; without keys in routes.yaml
none is needed.

example:
  headrace top --url http://127.0.0.1:8080
  headrace top --once --json
"""


def add(commands: Commands) -> None:
    """Add `top` to a command line."""
    text = "what a running proxy does now"
    parser = commands.add_parser(
        "top",
        help=text,
        description=text,
        epilog=_EPILOG,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.set_defaults(command=_top)
    add = parser.add_argument
    add("--url", default="http://127.0.0.1:8080", help="the proxy (%(default)s)")
    add("--every", type=float, default=2.0, metavar="SECONDS", help="time of a look (%(default)s)")
    add("--once", action="store_true", help="one look over that time, and an end")
    add("--json", action="store_true", help="one JSON object a line, for each look")


def _top(options: argparse.Namespace) -> int:
    if urlsplit(options.url).scheme not in ("http", "https"):
        raise BadConfig(f"--url {options.url}: an address like http://127.0.0.1:8080")
    if not 0 < options.every <= 3600:
        raise BadConfig(f"--every {options.every}: seconds, more than 0 and at most 3600")
    looks = _looks(_Proxy(options.url), options.every)
    if options.json:
        for live in looks:
            print(msgspec.json.encode(live).decode(), flush=True)
            if options.once:
                break
        return 0
    return _shown(looks, options.url, is_once=options.once)


class _Proxy:
    """A proxy that is asked for its metrics."""

    def __init__(self, url: str) -> None:
        self._place = url.rstrip("/").removesuffix("/v1") + "/metrics"
        key = os.environ.get(KEY)
        self._headers = {"authorization": f"Bearer {key}"} if key else {}

    def counts(self) -> Counts:
        """Its counters now; raises CannotStart with the reason."""
        request = urllib.request.Request(self._place, headers=self._headers)  # noqa: S310  # checked
        try:
            # The address is the user's own, who may read what it leads to.
            with urllib.request.urlopen(request, timeout=_TIMEOUT_S) as answer:  # noqa: S310
                content = answer.read(_LARGEST)
            return counts(text_string_to_metric_families(content.decode()), time.time())
        except urllib.error.HTTPError as error:
            hint = f"; export an admin's key as {KEY}" if error.code in (401, 403) else ""
            raise CannotStart(f"{self._place}: status {error.code}{hint}") from error
        except (OSError, ValueError, KeyError) as error:
            reason = getattr(error, "reason", None) or error
            raise CannotStart(f"{self._place}: {reason}; is it a running proxy?") from error


def _looks(proxy: _Proxy, every: float) -> Iterator[Live]:
    """What happened in each interval; never ends."""
    former = proxy.counts()
    while True:
        time.sleep(every)
        now = proxy.counts()
        yield between(former, now)
        former = now


# ---------------------------------------------------------------- for people


def _shown(looks: Iterator[Live], url: str, *, is_once: bool) -> int:
    try:
        from rich.console import Console
        from rich.live import Live as Screen
    except ImportError as error:
        raise missing("headrace top", "top", error) from error
    console = Console(highlight=False)
    if is_once or not console.is_terminal:
        for live in looks:
            _print(console, live, url)
            if is_once:
                break
        return 0
    with Screen(console=console, auto_refresh=False, screen=True) as screen:
        for live in looks:
            screen.update(_page(live, url), refresh=True)
    return 0


def _print(console: Console, live: Live, url: str) -> None:
    console.print(_page(live, url), soft_wrap=not console.is_terminal)


def _page(live: Live, url: str) -> Table:
    from rich.table import Table

    page = Table.grid()
    page.add_row(f"[bold]{_plain(url)}[/]  over {live.over_s:.0f} s", end_section=True)
    page.add_row(_line(live))
    page.add_row(_record(live))
    page.add_row("")
    paces = [
        (
            one.domain,
            one.backend,
            rate(one.per_s),
            seconds(one.p50_s),
            seconds(one.p95_s),
            count(one.requests),
        )
        for one in live.paces
    ]
    page.add_row(_table(("domain", "backend", "1/s", "p50", "p95", "all"), paces, texts=2))
    if live.fallbacks:
        page.add_row("")
        reasons = [(one.reason, rate(one.per_s), count(one.requests)) for one in live.fallbacks]
        page.add_row(_table(("fallback", "1/s", "all"), reasons, texts=1))
    return page


def _line(live: Live) -> str:
    errors = f"{rate(live.failed_per_s)} errors/s"
    return "  ".join(
        [
            f"[bold]{rate(live.requests_per_s)}[/] requests/s",
            f"[red]{errors}[/]" if live.failed_per_s else errors,
            f"{count(live.in_flight)} under way",
            f"p50 {seconds(live.p50_s)}",
            f"p95 {seconds(live.p95_s)}",
        ]
    )


def _record(live: Live) -> str:
    if not live.record:
        return "nothing is recorded"
    gone = live.record.get("dropped", 0) + live.record.get("lost", 0)
    lost = f"{count(gone)} lost"
    failing = "  [red]the record fails[/]" if live.record.get("failing") else ""
    waiting = f"record: {count(live.record.get('waiting', 0))} waiting"
    return f"{waiting}, {f'[red]{lost}[/]' if gone else lost}{failing}"


def _table(head: Sequence[str], rows: Sequence[Sequence[str]], *, texts: int) -> Table:
    """`texts`: the first columns, which stand left; the others are numbers."""
    from rich.table import Table

    table = Table(box=None, pad_edge=False, padding=(0, 2, 0, 0))
    for number, name in enumerate(head):
        table.add_column(name, justify="left" if number < texts else "right", style=None)
    for row in rows:
        table.add_row(*map(_plain, row))
    return table


def _plain(text: str) -> str:
    """A text that neither rich nor the terminal takes for a command."""
    from rich.markup import escape

    return escape(shown(text))
