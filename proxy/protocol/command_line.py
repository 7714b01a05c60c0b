"""Help of a command line: each command of both programs says what it does, and how it is typed."""

from __future__ import annotations

import argparse
import math
from collections.abc import Callable, Iterator, Mapping


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


def whole_number(least: int, most: int) -> Callable[[str], int]:
    """Type of an option that is a whole number, both bounds included."""

    def read(text: str) -> int:
        if not text.isdecimal() or len(text) > 18 or not least <= int(text) <= most:
            raise argparse.ArgumentTypeError(f"{text!r} is no number from {least} to {most}")
        return int(text)

    return read


def positive(most: float) -> Callable[[str], float]:
    """Type of an option that is a number above 0, at most `most`."""

    def read(text: str) -> float:
        try:
            number = float(text)
        except ValueError:
            number = math.nan
        if not 0 < number <= most:
            raise argparse.ArgumentTypeError(f"{text!r} is no number above 0, at most {most:g}")
        return number

    return read


def add_examples(parser: argparse.ArgumentParser, examples: Mapping[str, str]) -> None:
    """Put each command's example, by the command's words, under its help; above it what the
    command is for, as the list of commands says it."""
    _describe(parser)
    for words, command in commands(parser):
        if words in examples:
            command.formatter_class = argparse.RawDescriptionHelpFormatter
            command.epilog = f"example:\n  {examples[words]}"


def _describe(parser: argparse.ArgumentParser) -> None:
    for action in parser._actions:
        if isinstance(action, argparse._SubParsersAction):
            for listed in action._choices_actions:
                command = action.choices[listed.dest]
                command.description = command.description or listed.help
                _describe(command)
