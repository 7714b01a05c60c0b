"""Help of a command line: each command of both programs says what it does, and how it is typed."""

from __future__ import annotations

import argparse
from collections.abc import Iterator, Mapping


def commands(
    parser: argparse.ArgumentParser, words: tuple[str, ...] = ()
) -> Iterator[tuple[str, argparse.ArgumentParser]]:
    """Every command that can be run, by its words: `record ls`."""
    below = [a for a in parser._actions if isinstance(a, argparse._SubParsersAction)]
    if not below:
        yield " ".join(words), parser
    for action in below:
        for name, command in action.choices.items():
            yield from commands(command, (*words, name))


def add_examples(parser: argparse.ArgumentParser, examples: Mapping[str, str]) -> None:
    """Put each command's example, by the command's words, under its help."""
    for words, command in commands(parser):
        if words in examples:
            command.formatter_class = argparse.RawDescriptionHelpFormatter
            command.epilog = f"example:\n  {examples[words]}"
