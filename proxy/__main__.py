"""headrace: serve, check, record, report, plan-gpu.

Exit codes: 0 done · 1 something is broken · 2 the command line or the settings cannot be followed.
`report ab` says with others what it found (report.verdict).
"""

from __future__ import annotations

import argparse
import asyncio
import gc
import socket
import sys
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path

import msgspec
import structlog
import uvloop

from proxy import config, logs, model_memory, plan_gpu, record_commands, report_commands
from proxy.app import running
from proxy.auth import is_loopback
from proxy.backends.settings import CloudSettings
from proxy.catalog import BadAdapter
from proxy.config import Config
from proxy.errors import BadConfig, CannotStart
from proxy.protocol import adapter
from proxy.record_commands import table
from proxy.server import Server, address, bind
from proxy.welcome import welcome

log = structlog.get_logger(__name__)

Command = Callable[[argparse.Namespace], int]


def main(arguments: Sequence[str] | None = None) -> int:
    """Run a command; its exit code. What keeps it from starting is told on one line."""
    options = _parser().parse_args(arguments)
    command: Command = options.command
    try:
        return command(options)
    except CannotStart as error:
        print(f"headrace: {error}", file=sys.stderr)
        return error.exit_code
    except KeyboardInterrupt:
        return 130
    except BrokenPipeError:
        # The reader, `head` for instance, has had enough.
        sys.stderr.close()
        return 0


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="headrace", description="An OpenAI-compatible proxy that routes tools to LoRA experts."
    )
    commands = parser.add_subparsers(required=True, metavar="command")
    serve = _add(commands, "serve", _serve, "answer requests until stopped")
    serve.add_argument("--host", default="127.0.0.1", help="address to listen on (%(default)s)")
    serve.add_argument("--port", type=int, default=8080, help="port, 0 for any (%(default)s)")
    serve.add_argument("--log-level", choices=logs.LEVELS, default="info")
    _add(commands, "check", _check, "validate the settings and print the route table")
    _add_plan_gpu(commands)
    record_commands.add_to(commands, _add)
    report_commands.add_to(commands, _add)
    return parser


def _add_plan_gpu(commands: argparse._SubParsersAction[argparse.ArgumentParser]) -> None:
    text = "what fits on a GPU, and the lines that launch TGI and vLLM"
    parser = commands.add_parser("plan-gpu", help=text, description=text)
    parser.set_defaults(command=_plan_gpu)
    add = parser.add_argument
    add("--base", required=True, help=f"base model: {', '.join(model_memory.BASES)}")
    add("--gpu", required=True, help=f"{', '.join(plan_gpu.GPUS)}, or a card's memory in GiB")
    add("--gpus", type=int, default=1, help="cards, a server on each (%(default)s)")
    add("--adapters", type=int, required=True, help="LoRA adapters that each server holds")
    add("--context", type=int, required=True, help="tokens of a prompt with its answer")
    add("--quantize", choices=model_memory.QUANTIZE, default="nf4", help="weights (%(default)s)")
    add("--rank", type=int, default=32, help="rank of the adapters (%(default)s)")
    add("--json", action="store_true", help="print the plan as JSON")


def _add(
    commands: argparse._SubParsersAction[argparse.ArgumentParser],
    name: str,
    command: Command,
    text: str,
) -> argparse.ArgumentParser:
    parser = commands.add_parser(name, help=text, description=text)
    parser.set_defaults(command=command)
    parser.add_argument(
        "--config", type=Path, default=Path("routes.yaml"), help="settings file (%(default)s)"
    )
    return parser


# ---------------------------------------------------------------- serve


def _serve(options: argparse.Namespace) -> int:
    settings = config.load(options.config)
    _check_exposure(options.host, settings)
    logs.configure(options.log_level)
    with (
        bind(options.host, options.port) as bound,
        asyncio.Runner(loop_factory=uvloop.new_event_loop) as runner,
    ):
        try:
            runner.run(_until_stopped(settings, bound))
        except ExceptionGroup as group:
            raise _cause(group) from group
    return 0


def _cause(group: ExceptionGroup) -> CannotStart:
    """Why a group of tasks ended, as one error: the refusal to start, if one is among them."""
    first: BaseException = group.subgroup(CannotStart) or group
    while isinstance(first, BaseExceptionGroup):
        first = first.exceptions[0]
    return first if isinstance(first, CannotStart) else CannotStart(f"stopped by {first!r}")


async def _until_stopped(settings: Config, bound: socket.socket) -> None:
    def announce() -> None:
        keys = bool(settings.auth.keys)
        print(welcome(address(bound), settings.models, keys), flush=True)

    async with running(settings) as proxy:
        # What start-up made stays; without this the collector walks over it again and again.
        gc.collect()
        gc.freeze()
        server = Server(
            proxy.app,
            grace_s=settings.limits.grace_s,
            on_ready=announce,
            on_stop=proxy.draining.begin,
        )
        await server.serve(sockets=[bound])


def _check_exposure(host: str, settings: Config) -> None:
    if not settings.auth.keys and not is_loopback(host):
        raise BadConfig(
            f"{host} can be reached from other machines, and no key is needed to get in; add one"
            " under auth.keys in routes.yaml, or listen on --host 127.0.0.1"
        )


# ---------------------------------------------------------------- check


def _check(options: argparse.Namespace) -> int:
    settings = config.load(options.config)
    rows = [("domain", "tools", "plan", "verify", "adapter"), *_rows(settings)]
    print("\n".join(table(rows)))
    print(
        f"\nunknown or mixed tools → {settings.defaults.tools}, no tools → {settings.defaults.chat}"
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
        )


def _champion(settings: Config, backend: str, domain: str) -> str | None:
    """Id of the bundle that answers for a domain, proven whole; None where there is none."""
    local = settings.backends[backend]
    if isinstance(local, CloudSettings):
        return None
    try:
        id = adapter.read_champions(local.adapters).get(domain)
        return adapter.read(local.adapters / id).id if id else None
    except adapter.AdapterError as error:
        raise BadAdapter(str(error)) from error


def _table(rows: Sequence[Sequence[str]]) -> Iterator[str]:
    widths = [max(map(len, column)) for column in zip(*rows, strict=True)]
    for row in rows:
        cells = (cell.ljust(width) for cell, width in zip(row, widths, strict=True))
        yield "  ".join(cells).rstrip()


# ---------------------------------------------------------------- plan-gpu


def _plan_gpu(options: argparse.Namespace) -> int:
    chosen = {name: getattr(options, name) for name in plan_gpu.Order.__struct_fields__}
    try:
        order = msgspec.convert(chosen, plan_gpu.Order)
    except msgspec.ValidationError as error:
        raise BadConfig(f"plan-gpu: {error}") from None
    plan = plan_gpu.plan(order)
    if options.json:
        print(msgspec.json.format(msgspec.json.encode(plan), indent=2).decode())
    else:
        print("\n".join(plan_gpu.told(plan)))
    return 0


if __name__ == "__main__":
    sys.exit(main())
