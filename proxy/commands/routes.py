"""headrace check, headrace routes: what routes.yaml says, and where a request would go."""

from __future__ import annotations

import argparse
import sys
from collections.abc import Iterator
from pathlib import Path

from proxy import config
from proxy.backends.settings import CloudSettings
from proxy.catalog import BadAdapter
from proxy.commands.shared import Commands, add_with_config, formatted, table
from proxy.comparison import Shadow
from proxy.config import Config
from proxy.config_schema import schema
from proxy.domains import Domain
from proxy.errors import BadConfig, ProxyError
from proxy.explain import Step, explain, told
from proxy.gateway import parse
from proxy.protocol import adapter, champions
from proxy.protocol.openai import ChatRequest
from proxy.registry import trusted
from proxy.routing import Routes

_COLUMNS = ("domain", "tools", "plan", "verify", "adapter", "compared")


def add(commands: Commands) -> None:
    """Add `check` and `routes` to a command line."""
    check = add_with_config(
        commands, "check", _check, "validate the settings and print the route table"
    )
    check.add_argument("file", nargs="?", type=Path, help="in the place of --config")
    check.add_argument("--schema", action="store_true", help="print the JSON Schema, for editors")
    check.add_argument("--json", action="store_true", help="print the route table as JSON")
    routes = commands.add_parser("routes", help="where requests go")
    asking = routes.add_subparsers(required=True, metavar="command")
    text = "where one request would go, and why; asks nobody"
    one = add_with_config(asking, "explain", _explain, text)
    one.add_argument("request", type=Path, help="file with the request's JSON body, - for stdin")
    one.add_argument("--tenant", default="default", help="whose request it is (%(default)s)")
    text = "of the request; again for more"
    one.add_argument(
        "--header", type=_header, action="append", default=[], metavar="NAME:VALUE", help=text
    )
    one.add_argument("--json", action="store_true", help="print the explanation as JSON")


# ---------------------------------------------------------------- check


def _check(options: argparse.Namespace) -> int:
    if options.schema:
        print(formatted(schema()))
        return 0
    settings = config.load(options.file or options.config)
    rows = list(_rows(settings))
    if options.json:
        print(formatted([dict(zip(_COLUMNS, row, strict=True)) for row in rows]))
        return 0
    print("\n".join(table([_COLUMNS, *rows])))
    defaults = settings.defaults
    print(
        f"\nunknown tools → {defaults.tools}, mixed tools → {defaults.mixed or defaults.tools},"
        f" no tools → {defaults.chat}"
    )
    print(f"models: {', '.join(settings.models)}")
    print(f"record: {settings.record.directory if settings.record else 'off'}")
    return 0


def _rows(settings: Config) -> Iterator[tuple[str, ...]]:
    for name, domain in settings.domains.items():
        adapters = [_champion(settings, backend, name) for backend in domain.plan]
        yield (
            name,
            " ".join(domain.tools) or "-",
            " → ".join(domain.plan),
            domain.verify,
            " ".join(filter(None, adapters)) or "-",
            ", ".join(_comparisons(domain)) or "-",
        )


def _comparisons(domain: Domain) -> Iterator[str]:
    """What of a domain is compared with what, in words."""
    if domain.split:
        shares = " / ".join(f"{name} {share:.0%}" for name, share in domain.split.items())
        yield f"split {shares} by {domain.assign_by}"
    if domain.canary is not None:
        yield f"canary {domain.canary.adapter} {domain.canary.share:.0%} by {domain.assign_by}"
    if domain.shadow is not None:
        yield _shadow(domain.shadow)


def _shadow(shadow: Shadow) -> str:
    budget, hours = shadow.budget_usd_per_day, shadow.hours
    told = [f"shadow to {shadow.to} {shadow.share:.0%}", f"{shadow.max_in_flight} at once"]
    told += [] if budget is None else [f"{budget:g} USD a day"]
    told += [] if hours is None else [f"{hours} UTC"]
    return " · ".join(told)


def _champion(settings: Config, backend: str, domain: str) -> str | None:
    """Id of the bundle that answers for a domain, proven whole; None where there is none."""
    local = settings.backends[backend]
    if isinstance(local, CloudSettings):
        return None
    try:
        id = champions.read(local.adapters).serving.get(domain)
        keys = trusted(f"$.backends.{backend}", local)
        return adapter.read(local.adapters / id, keys).id if id else None
    except adapter.AdapterError as error:
        raise BadAdapter(str(error)) from error


# ---------------------------------------------------------------- routes


def _explain(options: argparse.Namespace) -> int:
    settings = config.load(options.config)
    request = _request(options.request)
    routes = Routes(settings.domains, settings.defaults, settings.models)

    def step(backend: str, domain: str) -> Step:
        return Step(backend, _champion(settings, backend, domain))

    try:
        found = explain(routes, options.tenant, request, dict(options.header), step)
    except ProxyError as error:
        raise BadConfig(f"{options.request}: {error.message}") from error
    print(formatted(found) if options.json else "\n".join(told(found)))
    return 0


def _request(path: Path) -> ChatRequest:
    try:
        return parse(sys.stdin.buffer.read() if str(path) == "-" else path.read_bytes())
    except OSError as error:
        raise BadConfig(f"{path}: {error.strerror}") from error
    except ProxyError as error:
        raise BadConfig(f"{path}: no chat request: {error.message}") from error


def _header(text: str) -> tuple[bytes, bytes]:
    name, colon, value = text.partition(":")
    if not (name.strip() and colon):
        raise argparse.ArgumentTypeError(f"{text!r} is not like NAME:VALUE")
    return name.strip().lower().encode(), value.strip().encode()
