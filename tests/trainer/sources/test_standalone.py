"""Functions whose code is an answer by itself, and those whose code is none."""

from __future__ import annotations

import importlib
from pathlib import Path
from types import ModuleType

import pytest

pytest.importorskip("lxml", reason="needs the docs extra")

from trainer.sources.standalone import standing_alone

MODULE = '''
import itertools as it
import os.path
from bisect import bisect_left
from collections import Counter as Tally
from functools import _make_key
from heapq import merge
from typing import Any

MOST = 3
UNREADABLE = object()


def _private(x):
    return x


def common(text: str, *, least: int = 1) -> list[Any]:
    """The most common words."""
    return [word for word, n in Tally(text.split()).most_common(MOST) if n >= least]


def merged(*streams):
    """Merge them."""
    return list(it.chain(merge(*streams), [bisect_left([1], 1)], [os.path.sep]))


def nested(words):
    def inner(word: str) -> str:
        """Never shown."""
        return word.upper()
    try:
        return [inner(w) for w in words]
    except ValueError as error:
        return [str(error)]


def needs_private(x):
    return _private(x)


def needs_what_its_library_hides(x):
    return _make_key(x, {}, False)


def needs_an_object(x):
    return x is UNREADABLE


def declared(x): ...


def refuses(x):
    """Not for you."""
    raise NotImplementedError


def about_itself(self, x):
    return x


def long(x):
LINES
    return x
'''.replace("LINES", "    x += 1\n" * 30)


@pytest.fixture(scope="module")
def module(tmp_path_factory: pytest.TempPathFactory) -> ModuleType:
    path: Path = tmp_path_factory.mktemp("standalone")
    (path / "standing.py").write_text(MODULE)
    with pytest.MonkeyPatch.context() as patch:
        patch.syspath_prepend(path)
        importlib.invalidate_caches()
        return importlib.import_module("standing")


def called(code: str, name: str, *arguments: object) -> object:
    scope: dict[str, object] = {}
    exec(code, scope)
    return scope[name](*arguments)


def test_a_function_comes_with_its_imports_and_constants_and_without_docstring(module):
    code = standing_alone(module.common)

    assert code == (
        "MOST = 3\nfrom collections import Counter as Tally\n\n"
        "def common(text, *, least=1):\n"
        "    return [word for word, n in Tally(text.split()).most_common(MOST) if n >= least]"
    )
    assert called(code, "common", "a b a") == ["a", "b"]


def test_names_are_imported_from_where_they_are_public(module):
    code = standing_alone(module.merged)

    assert "from bisect import bisect_left" in code
    assert "from heapq import merge\n" in code
    assert called(code, "merged", [1, 3], [2])[:3] == [1, 2, 3]


def test_functions_inside_keep_their_names_and_lose_their_docstrings(module):
    code = standing_alone(module.nested)

    assert "Never shown" not in code
    assert called(code, "nested", ["a"]) == ["A"]


@pytest.mark.parametrize(
    "name",
    [
        *("needs_private", "needs_what_its_library_hides", "needs_an_object"),
        *("declared", "refuses", "about_itself", "long"),
    ],
)
def test_what_does_not_stand_alone_is_no_answer(module, name):
    assert standing_alone(getattr(module, name)) == ""


@pytest.mark.parametrize("thing", [len, 7, Path, None, lambda x: x])
def test_what_is_no_function_of_python_is_no_answer(thing):
    assert standing_alone(thing) == ""
