"""What the commands print."""

from __future__ import annotations

import pytest
from rich.table import Table

from trainer.commands.shared import console


def test_square_brackets_and_colons_are_printed_as_they_are(capsys: pytest.CaptureFixture[str]):
    table = Table(":key:", title="[/title]")
    table.add_row("[bold]row[/red]")

    console.print("signed_by: [/lXw/nl=] :smile: [/]", table)

    printed = capsys.readouterr().out
    assert "signed_by: [/lXw/nl=] :smile: [/]" in printed
    for text in (":key:", "[/title]", "[bold]row[/red]"):
        assert text in printed
