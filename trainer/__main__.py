"""`headrace-trainer`: rows in, labels, recipes, checks, training, figures, promotion."""

from __future__ import annotations

import argparse
import logging
import sys
from collections.abc import Sequence

from proxy.protocol.adapter import AdapterError
from proxy.protocol.base_model import BaseModelError
from proxy.protocol.command_line import add_examples
from proxy.protocol.formats.base import UnknownTemplate
from proxy.protocol.visible import shown
from trainer.commands import COMMANDS
from trainer.commands.examples import EXAMPLES
from trainer.errors import TrainerError

_EPILOG = """\
examples:
  headrace-trainer train --recipe api --out runs/api
  headrace-trainer evaluate --dataset runs/api/dataset --subject base --subject api-v2
  headrace-trainer run --domain geo

exit codes: 0 done, 1 something is broken, 2 the command line cannot be followed, 3 done, but rows
could not be read; `dataset taint`, `registry taint`, `promote` and `run` have more (docs/)
"""


def main(arguments: Sequence[str] | None = None) -> int:
    """Run one command; 0 when it did what it says, an error's status with one line on stderr when
    not, 3 when rows had to be skipped."""
    options = _parser().parse_args(arguments)
    # It warns of a kernel that only 4 bits on a processor would use, whatever is trained.
    logging.getLogger("bitsandbytes.backends.cpu.ops").setLevel(logging.ERROR)
    try:
        code: int | None = options.run(options)
    except (TrainerError, AdapterError, BaseModelError, UnknownTemplate) as error:
        print(f"headrace-trainer: {shown(' '.join(str(error).split()))}", file=sys.stderr)
        return error.status if isinstance(error, TrainerError) else 1
    except KeyboardInterrupt:
        return 130
    except BrokenPipeError:
        # The reader, `head` for instance, has had enough.
        sys.stderr.close()
        return 0
    except OSError as error:
        if error.filename is None:
            raise
        print(f"headrace-trainer: {shown(error.filename)}: {error.strerror}", file=sys.stderr)
        return 1
    return code or 0


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        "headrace-trainer",
        description="Traffic into better adapters.",
        epilog=_EPILOG,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    commands = parser.add_subparsers(required=True, metavar="COMMAND")
    for command in COMMANDS:
        command.add(commands)
    add_examples(parser, EXAMPLES)
    return parser


if __name__ == "__main__":
    sys.exit(main())
