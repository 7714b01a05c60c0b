"""The threat model names tests; they exist. What the linter is told to pass over has its reason."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
PAGE = (ROOT / "docs" / "security.md").read_text()
NAMED = sorted(set(re.findall(r"`([\w/]+\.py)::(\w+)`", PAGE)))


@pytest.mark.parametrize(("file", "test"), NAMED, ids=lambda part: part)
def test_test_of_a_threat_exists(file: str, test: str):
    content = (ROOT / "tests" / file).read_text()

    assert re.search(rf"^(async )?def {test}\(", content, re.MULTILINE)


def test_every_threat_has_a_test():
    rows = [line for line in PAGE.splitlines() if line.startswith("| ")]
    threats = [row for row in rows if not row.startswith(("| threat", "|---"))]

    assert len(threats) > 30
    assert [row for row in threats if "::" not in row] == []


def test_every_exception_of_bandit_s_rules_has_a_reason_near_it():
    lines = [
        (path, number, before, line)
        for path in (*ROOT.glob("proxy/**/*.py"), *ROOT.glob("trainer/**/*.py"))
        for number, (before, line) in enumerate(
            zip(["", *path.read_text().splitlines()], path.read_text().splitlines(), strict=False)
        )
        if re.search(r"# noqa: S\d", line)
    ]
    bare = [
        (str(path), number + 1)
        for path, number, before, line in lines
        if not re.search(r"# noqa: S\d+\s*(#|-) \w", line) and not _is_explained(path, number)
    ]

    assert len(lines) > 5
    assert bare == []


def _is_explained(path: Path, number: int) -> bool:
    """Whether a comment stands within the four lines above."""
    above = path.read_text().splitlines()[max(0, number - 4) : number]
    return any(line.lstrip().startswith("#") for line in above)
