"""Every command of both programs has an example, and each example is one that the program takes."""

from __future__ import annotations

import argparse
import shlex
from collections.abc import Mapping

import pytest

from proxy import __main__ as proxy
from proxy.commands import examples
from proxy.protocol.command_line import commands
from trainer import __main__ as trainer
from trainer.commands import examples as trainer_examples

PROGRAMS = {
    "headrace": (proxy._parser(), examples.EXAMPLES),
    "headrace-trainer": (trainer._parser(), trainer_examples.EXAMPLES),
}
EXAMPLES = [
    pytest.param(parser, example, id=example[:60])
    for parser, shown in PROGRAMS.values()
    for example in shown.values()
]


@pytest.mark.parametrize(("parser", "shown"), PROGRAMS.values(), ids=PROGRAMS)
def test_every_command_has_an_example(parser: argparse.ArgumentParser, shown: Mapping[str, str]):
    assert {words for words, _ in commands(parser)} == set(shown)


@pytest.mark.parametrize(("parser", "example"), EXAMPLES)
def test_an_example_can_be_typed(parser: argparse.ArgumentParser, example: str):
    typed = shlex.split(example.split(" | ")[0].split(" > ")[0])
    assert typed[0] == parser.prog
    parser.parse_args(typed[1:])


@pytest.mark.parametrize(("parser", "shown"), PROGRAMS.values(), ids=PROGRAMS)
def test_help_ends_with_the_example(parser: argparse.ArgumentParser, shown: Mapping[str, str]):
    for words, command in commands(parser):
        assert command.format_help().rstrip().endswith(shown[words])
