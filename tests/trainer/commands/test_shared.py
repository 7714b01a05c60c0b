"""What the commands print."""

from __future__ import annotations

import pytest
from rich.table import Table
from rich.text import Text

from trainer.commands.shared import console


def test_square_brackets_and_colons_are_printed_as_they_are(capsys: pytest.CaptureFixture[str]):
    table = Table(":key:", title="[/title]")
    table.add_row("[bold]row[/red]")

    console.print("signed_by: [/lXw/nl=] :smile: [/]", table)

    printed = capsys.readouterr().out
    assert "signed_by: [/lXw/nl=] :smile: [/]" in printed
    for text in (":key:", "[/title]", "[bold]row[/red]"):
        assert text in printed


def test_what_steers_a_terminal_is_printed_as_text(capsys: pytest.CaptureFixture[str]):
    hostile = "\x1b]0;a\x07\x9b2J\u202e"
    table = Table(hostile)
    table.add_row(Text(hostile, style="red"))

    console.print(hostile, table)

    printed = capsys.readouterr().out
    assert printed.count("⟨U+001") == 3
    assert not any(letter in printed for letter in "\x1b\x07\x9b\u202e")
