"""headrace: serve, check, keys, routes, record, report, top, plan-gpu, fetch, completion.

Exit codes: 0 done · 1 something is broken · 2 the command line or the settings cannot be followed.
`report ab` says with others what it found (report.verdict).
"""

from __future__ import annotations

import argparse
import asyncio
import gc
import socket
import sys
from collections.abc import AsyncIterator, Callable, Sequence
from contextlib import AsyncExitStack, asynccontextmanager
from pathlib import Path

import msgspec
import structlog
import uvloop

from proxy import (
    config,
    keys_commands,
    logs,
    model_memory,
    plan_gpu,
    record_commands,
    report_commands,
    routes_commands,
    top,
    workers,
)
from proxy.app import Proxy, running
from proxy.auth import is_loopback
from proxy.beside import missing
from proxy.config import Config
from proxy.errors import BadConfig, CannotStart
from proxy.examples import EXAMPLES
from proxy.fetch import fetch
from proxy.metrics import Metrics
from proxy.protocol.command_line import add_examples
from proxy.quotas.memory import MemoryLedger
from proxy.reload import Live, live
from proxy.server import Server, address, bind
from proxy.siblings import Place, Siblings
from proxy.welcome import welcome

log = structlog.get_logger(__name__)

_COLLECT_AFTER = 20_000
"""Objects that are made, and not freed, until the collector looks for cycles: some 10 MiB of them.
Chosen: at Python's 700 it looks at every second request, and finds next to nothing."""

Command = Callable[[argparse.Namespace], int]

_EPILOG = """\
examples:
  headrace serve --config routes.yaml
  headrace check routes.yaml
  headrace keys new --tenant acme --name shop --days 90
  headrace routes explain request.json
  headrace record query "SELECT domain, count(*) FROM exchanges GROUP BY domain"

exit codes: 0 done, 1 something is broken, 2 the command line or the settings cannot be followed
"""


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
        prog="headrace",
        description="An OpenAI-compatible proxy that routes tools to LoRA experts.",
        epilog=_EPILOG,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    commands = parser.add_subparsers(required=True, metavar="command")
    serve = _add(commands, "serve", _serve, "answer requests until stopped")
    serve.add_argument("--host", default="127.0.0.1", help="address to listen on (%(default)s)")
    serve.add_argument("--port", type=int, default=8080, help="port, 0 for any (%(default)s)")
    serve.add_argument(
        "--workers", type=_count, default=1, help="processes that share the port (%(default)s)"
    )
    serve.add_argument("--log-level", choices=logs.LEVELS, default="info")
    routes_commands.add_to(commands, _add)
    _add_plan_gpu(commands)
    _add_fetch(commands)
    record_commands.add_to(commands, _add)
    report_commands.add_to(commands, _add)
    keys_commands.add_to(commands, _add)
    top.add_to(commands)
    _add_completion(commands, parser)
    add_examples(parser, EXAMPLES)
    return parser


def _add_completion(
    commands: argparse._SubParsersAction[argparse.ArgumentParser], whole: argparse.ArgumentParser
) -> None:
    text = "print what makes a shell complete this command line"
    parser = commands.add_parser("completion", help=text, description=text)
    parser.add_argument("shell", choices=("bash", "zsh", "tcsh"))
    parser.set_defaults(command=lambda options: _completion(whole, options.shell))


def _completion(parser: argparse.ArgumentParser, shell: str) -> int:
    try:
        import shtab
    except ImportError as error:
        raise missing("completion", "completion", error) from error
    print(shtab.complete(parser, shell=shell))
    return 0


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


def _add_fetch(commands: argparse._SubParsersAction[argparse.ArgumentParser]) -> None:
    text = "copy a model or adapters out of a bucket into a directory"
    parser = commands.add_parser("fetch", help=text, description=text)
    parser.set_defaults(command=_fetch)
    parser.add_argument("url", help="s3://, gs://, az:// or file://, with the path")
    parser.add_argument("directory", type=Path, help="made when missing")
    parser.add_argument("--json", action="store_true", help="one JSON string a line")


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
    place = Place.found()
    if place is not None:
        with socket.socket(fileno=place.listening) as bound:
            return _work(options, bound, place)
    with bind(options.host, options.port) as bound:
        if options.workers > 1:
            return workers.run(options.workers, bound, sys.argv[1:])
        return _work(options, bound, None)


def _work(options: argparse.Namespace, bound: socket.socket, place: Place | None) -> int:
    """Answer what comes in through a socket, as one of several workers or alone."""
    logs.configure(options.log_level)
    with asyncio.Runner(loop_factory=uvloop.new_event_loop) as runner:
        try:
            runner.run(_until_stopped(options.config, options.host, bound, place))
        except ExceptionGroup as group:
            raise _cause(group) from group
    return 0


def _count(text: str) -> int:
    count = int(text)
    if not 1 <= count <= 256:
        raise argparse.ArgumentTypeError("from 1 to 256")
    return count


def _cause(group: ExceptionGroup) -> CannotStart:
    """Why a group of tasks ended, as one error: the refusal to start, if one is among them."""
    first: BaseException = group.subgroup(CannotStart) or group
    while isinstance(first, BaseExceptionGroup):
        first = first.exceptions[0]
    return first if isinstance(first, CannotStart) else CannotStart(f"stopped by {first!r}")


async def _until_stopped(path: Path, host: str, bound: socket.socket, place: Place | None) -> None:
    used, metrics = MemoryLedger(), Metrics({})
    siblings = None if place is None else Siblings(place)

    @asynccontextmanager
    async def start(live: Live) -> AsyncIterator[Proxy]:
        settings = await asyncio.to_thread(config.load, path)
        _check_exposure(host, settings)
        async with running(settings, used, live, metrics, siblings) as proxy:
            yield proxy

    settings = config.load(path)
    async with AsyncExitStack() as stack:
        proxies = await stack.enter_async_context(
            live(path, start, settings.limits.longest_s, siblings)
        )
        if siblings is not None:
            await stack.enter_async_context(siblings.telling())
        # What start-up made stays; without this the collector walks over it again and again.
        gc.collect()
        gc.freeze()
        gc.set_threshold(_COLLECT_AFTER)
        server = Server(
            proxies,
            grace_s=settings.limits.grace_s,
            on_ready=lambda: _announce(settings, bound, place),
            on_stop=proxies.begin_draining,
            on_hangup=proxies.want,
        )
        await server.serve(sockets=[bound])


def _announce(settings: Config, bound: socket.socket, place: Place | None) -> None:
    if place is not None and place.number > 0:
        return
    has_keys = not settings.auth.is_open
    print(welcome(address(bound), settings.models, has_keys), flush=True)


def _check_exposure(host: str, settings: Config) -> None:
    if settings.auth.is_open and not is_loopback(host):
        raise BadConfig(
            f"{host} can be reached from other machines, and no key is needed to get in; add one"
            " under auth.keys in routes.yaml, or listen on --host 127.0.0.1"
        )


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


# ---------------------------------------------------------------- fetch


def _fetch(options: argparse.Namespace) -> int:
    for line in fetch(options.url, options.directory):
        print(msgspec.json.encode(line).decode() if options.json else line, flush=True)
    return 0


if __name__ == "__main__":
    sys.exit(main())
