"""What the commands have in common: the console, telling of skipped rows."""

from __future__ import annotations

import argparse
from collections.abc import Iterable
from pathlib import Path
from typing import TypeAlias

from rich.console import Console, ConsoleOptions, RenderableType
from rich.segment import Segment

from proxy.protocol.visible import shown
from trainer.errors import TrainerError
from trainer.sources.base import Skips

Commands: TypeAlias = "argparse._SubParsersAction[argparse.ArgumentParser]"
"""Where a command adds itself."""


class _PlainConsole(Console):
    """A console to which all that is printed is text: only rich's own sequences steer a terminal.

    Rich passes ESC on as it stands in a text.
    """

    def render(
        self, renderable: RenderableType, options: ConsoleOptions | None = None
    ) -> Iterable[Segment]:
        for segment in super().render(renderable, options):
            yield segment if segment.control else segment._replace(text=shown(segment.text))


console = _PlainConsole(markup=False, emoji=False)
"""What is printed holds names, keys and answers, which may have square brackets: styles are told
by `style` or `Text`."""
SKIPPED = 3
"""Exit code of a command that did its work, but could not read every row."""


def existing(directory: Path) -> Path:
    """The directory, which is there: a record that is not, asked what was erased, says nothing."""
    if not directory.is_dir():
        raise TrainerError(f"{directory}: no such directory")
    return directory


def tell(skips: Skips) -> int:
    """Print what could not be read, by reason; the command's exit code."""
    for reason, count in skips.left_out.most_common():
        console.print(f"  left out  {count:5} {reason}")
    for reason, count in skips.counts.most_common():
        console.print(f"   skipped  {count:5} {reason}")
        for skip in skips.told[reason]:
            console.print(f"            {skip}", style="dim", highlight=False)
    return SKIPPED if skips else 0
