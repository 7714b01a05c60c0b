"""Text that is Python, and text that is none."""

from __future__ import annotations

import warnings

import pytest

from trainer.syntax import parsed


def test_python_has_a_tree_and_warns_nobody():
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        tree = parsed('if 1 is 1:\n    print("\\d")')

    assert tree is not None
    assert len(tree.body) == 1


@pytest.mark.parametrize("code", ["print 1", "a\0b", "(" * 100_000, "-" * 100_000 + "1"])
def test_what_is_no_python_has_none(code):
    assert parsed(code) is None
