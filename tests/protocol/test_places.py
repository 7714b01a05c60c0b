"""Paths start where they should, and a home that nobody has ends nothing."""

from __future__ import annotations

from pathlib import Path

import pytest

from proxy.protocol.places import place


@pytest.mark.parametrize(
    ("written", "meant"),
    [
        ("adapters", "/etc/headrace/adapters"),
        ("/srv/adapters", "/srv/adapters"),
        ("~/adapters", "/home/me/adapters"),
        ("~nobody-of-that-name/adapters", "/etc/headrace/~nobody-of-that-name/adapters"),
    ],
)
def test_paths_start_at_the_directory_or_at_a_home(written, meant, monkeypatch):
    monkeypatch.setenv("HOME", "/home/me")

    assert place(written, Path("/etc/headrace")) == Path(meant)
    assert place(Path(written), Path("/etc/headrace")) == Path(meant)
