"""headrace: serve, check, keys, routes, record, report, top, plan-gpu, fetch, completion.

Exit codes: 0 done · 1 something is broken · 2 the command line or the settings cannot be followed.
`report ab` says with others what it found (report.verdict).
"""

from __future__ import annotations

import argparse
import gc
import sys
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import TYPE_CHECKING

from proxy.errors import CannotStart
from proxy.protocol.command_line import add_examples
from proxy.protocol.visible import shown

if TYPE_CHECKING:
    from proxy.commands.shared import Command

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
    with _uncollected(), _unseen("rich"):
        options = _parser().parse_args(arguments)
    command: Command = options.command
    try:
        return command(options)
    except CannotStart as error:
        print(f"headrace: {shown(error)}", file=sys.stderr)
        return error.exit_code
    except KeyboardInterrupt:
        return 130
    except BrokenPipeError:
        # The reader, `head` for instance, has had enough.
        sys.stderr.close()
        return 0


@contextmanager
def _uncollected() -> Iterator[None]:
    """What is imported stays: without this, the collector walks over it some hundred times."""
    gc.disable()
    try:
        yield
    finally:
        gc.freeze()
        gc.enable()


@contextmanager
def _unseen(package: str) -> Iterator[None]:
    """Meanwhile the package counts as not installed.

    structlog loads rich where it finds it, for tracebacks with local variables, which we never
    show: 4 MiB and a tenth of the start.
    """
    had = sys.modules.get(package)
    sys.modules[package] = None  # type: ignore[assignment]
    try:
        yield
    finally:
        del sys.modules[package]
        if had is not None:
            sys.modules[package] = had


def _parser() -> argparse.ArgumentParser:
    # Here, so that the imports of all commands are in `_uncollected`.
    from proxy.commands import COMMANDS, completion
    from proxy.commands.examples import EXAMPLES

    parser = argparse.ArgumentParser(
        prog="headrace",
        description="An OpenAI-compatible proxy that routes tools to LoRA experts.",
        epilog=_EPILOG,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    commands = parser.add_subparsers(required=True, metavar="command")
    for command in COMMANDS:
        command.add(commands)
    completion.add(commands, parser)
    add_examples(parser, EXAMPLES)
    return parser


if __name__ == "__main__":
    sys.exit(main())
