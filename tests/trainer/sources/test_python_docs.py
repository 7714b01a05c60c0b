"""Documentation as rows: Sphinx's pages, and docstrings of installed packages."""

from __future__ import annotations

import ast
import importlib
import json
import os
import re
import subprocess
import sys
from pathlib import Path

import pytest

pytest.importorskip("lxml", reason="needs the docs extra")

from trainer.errors import SourceError
from trainer.recipe.sources import PythonDocsSettings
from trainer.rows import Row
from trainer.sources.base import Skips
from trainer.sources.html import parse, text, unprompted
from trainer.sources.python_docs import PythonDocsSource

PAGE = """<html><head><title>x</title><script>bad()</script></head><body>
<section id="json"><h1>json — Encoder<a class="headerlink" href="#json">¶</a></h1>
<p>Some <em>words</em>.</p>
<section id="basics"><h2>Basics<a class="headerlink" href="#basics">¶</a></h2>
<p>Encoding <code>basic</code> objects:</p>
<div class="highlight-default notranslate">
<div class="highlight"><pre>
<span class="gp">&gt;&gt;&gt; </span>json.dumps([1,
<span class="gp">... </span>  2])
<span class="go">'[1, 2]'</span>
</pre></div></div>
<dl class="py function">
<dt class="sig sig-object py" id="json.dumps"><span>json.</span><span>dumps</span>(<em>obj</em>,
<em>*</em>, <em>indent=None</em>)<a class="headerlink" href="#json.dumps">¶</a></dt>
<dd><p>Serialize <em>obj</em> to a <code>str</code>.</p>
<dl class="field-list simple"><dt>Parameters<span>:</span></dt>
<dd><dl><dt><strong>obj</strong></dt><dd><p>What to
write.</p></dd></dl></dd></dl>
<p>A list:</p>
<div class="highlight-python3 notranslate">
<div class="highlight"><pre>json.dumps([1])</pre></div></div>
<div class="highlight-shell notranslate">
<div class="highlight"><pre>$ rm -rf</pre></div></div>
</dd></dl>
</section></section></body></html>"""
INVENTORY = b"# Sphinx inventory version 2\n# Project: Toy\n# Version: 1.2\n"


@pytest.fixture
def site(tmp_path: Path) -> Path:
    (tmp_path / "objects.inv").write_bytes(INVENTORY)
    (tmp_path / "json.html").write_text(PAGE)
    return tmp_path


def rows(**settings: list[str]) -> tuple[list[Row], Skips]:
    skips = Skips()
    source = PythonDocsSource(PythonDocsSettings(license="PSF-2.0", **settings), skips)
    return list(source.rows()), skips


def by_question(made: list[Row]) -> dict[str, str]:
    return {row.messages[0].content[0].text: row.text for row in made}


# ---------------------------------------------------------------- a site


def test_a_function_gives_what_it_is_its_parameters_and_its_examples(site):
    made, _ = rows(sites=[str(site)])
    said = by_question(made)

    assert said["What does `json.dumps` do, and how is it called?"] == (
        "```python\ndef dumps(obj, *, indent=None): ...\n```\n\nSerialize obj to a `str`."
    )
    assert said["Which parameters does `json.dumps` take?"].endswith("- `obj`: What to write.")
    assert said["Show an example of `json.dumps`."] == "A list:\n\n```python\njson.dumps([1])\n```"
    assert not any("rm -rf" in answer for answer in said.values())


def test_a_chapter_with_code_is_explained_without_what_is_inside_of_it(site):
    said = by_question(rows(sites=[str(site)])[0])["Explain “Basics” (json — Encoder)."]

    assert said == (
        "Encoding `basic` objects:\n\n```python\njson.dumps([1,\n  2])\n# '[1, 2]'\n```"
    )


def test_a_row_says_where_it_is_from_and_what_it_belongs_to(site):
    row = rows(sites=[str(site)])[0][0]

    assert row.messages[0].content[1].text == "\n\nLibrary: Toy 1.2"
    assert row.source == "python_docs:Toy 1.2/json.html#json.dumps"
    assert (row.group, row.license) == ("Toy 1.2:json.dumps", "PSF-2.0")


def test_a_folder_without_an_inventory_is_told(tmp_path):
    with pytest.raises(SourceError, match=r"the one with objects\.inv"):
        rows(sites=[str(tmp_path)])


@pytest.mark.parametrize(
    "content",
    [b"", b"\x00\xff\xfe", b"<dl class=py><dt id=x></dl>", b"<p>" * 100_000, b"<!-- x -->"],
)
def test_a_broken_page_breaks_nothing(site, content):
    (site / "broken.html").write_bytes(content)

    assert len(rows(sites=[str(site)])[0]) == 4


def test_comments_in_a_page_say_nothing(site):
    before = rows(sites=[str(site)])[0]
    commented = PAGE.replace("Basics<a", "Bas<!-- a -->ics<a").replace(
        "<em>obj</em>,", "<em>obj</em>,<!-- b --><?c?>"
    )
    (site / "json.html").write_text(commented)

    assert rows(sites=[str(site)])[0] == before


def test_a_signature_that_is_no_python_is_shown_as_text(site):
    (site / "json.html").write_text(PAGE.replace("<em>*</em>", "<em>&lt;no value&gt;</em>"))

    assert by_question(rows(sites=[str(site)])[0])[
        "What does `json.dumps` do, and how is it called?"
    ].startswith("```text\njson.dumps(")


def test_what_older_documentation_marks_as_optional_has_a_default(site):
    optional = PAGE.replace(
        ",\n<em>*</em>, <em>indent=None</em>", "[, <em>indent</em>[, <em>sep</em>]]"
    )
    (site / "json.html").write_text(optional)

    assert "def dumps(obj, indent=..., sep=...): ..." in rows(sites=[str(site)])[0][0].text


# ---------------------------------------------------------------- HTML


def test_text_keeps_paragraphs_lists_and_code_and_leaves_scripts_out():
    page = "<div>a <b>b</b><script>x</script><ul><li>c<li>d</ul><pre>e\n f</pre>g</div>"

    assert text(parse(page)) == "a b\n\n- c\n\n- d\n\n```python\ne\n f\n```\n\ng"


def test_prompts_go_and_output_becomes_a_comment():
    session = ">>> for x in y:\n...     x\n...\n1\n\nOut[3]: 2\nIn [4]: z"

    assert unprompted(session) == "for x in y:\n    x\n# 1\n# 2\nz"
    assert unprompted("a = 1\n\nb = 2") == "a = 1\n\nb = 2"


# ---------------------------------------------------------------- docstrings


def test_docstrings_of_a_package_are_read_in_its_own_words(tmp_path, monkeypatch):
    (tmp_path / "toylib.py").write_text(
        '''def area(width, height=1):
    """Area of a rectangle.

    Parameters
    ----------
    width : float
        In metres.

    Examples
    --------
    Two by three:

    >>> area(2, 3)
    6
    """


class Box:
    """A box."""

    def open(self):
        """Open it."""

    def _hidden(self):
        """Not for you."""


class Broken(Exception):
    """It broke."""
'''
    )
    monkeypatch.syspath_prepend(tmp_path)
    importlib.invalidate_caches()

    said = by_question(rows(packages=["toylib"])[0])

    about = "What does `toylib.area` do, and how is it called?"
    assert said[about] == "```python\ndef area(width, height=1): ...\n```\n\nArea of a rectangle."
    assert said["Which parameters does `toylib.area` take?"].endswith(
        "- `width` (float): In metres."
    )
    shown = "Two by three:\n\n```python\narea(2, 3)\n# 6\n```"
    assert said["Show an example of `toylib.area`."] == shown
    assert "What does `toylib.Box.open` do, and how is it called?" in said
    assert not any("_hidden" in asked or "with_traceback" in asked for asked in said)


PROCESS = """
import json, sys
from trainer.recipe.sources import PythonDocsSettings
from trainer.sources.base import Skips
from trainer.sources.python_docs import PythonDocsSource

sys.path.insert(0, sys.argv[1])
settings = PythonDocsSettings(license="PSF-2.0", packages=["placed", "numpy", "requests"])
rows = PythonDocsSource(settings, Skips()).rows()
print(json.dumps([[row.id, row.source, row.text] for row in rows]))
"""


def test_two_processes_read_the_same_rows(tmp_path):
    (tmp_path / "placed.py").write_text(
        """class Nothing:
    pass


def find(name, default=Nothing(), of=frozenset({"red", "green", "blue", "black", "white"})):
    pass


def kept(name: Nothing()) -> None:
    pass


find.__doc__ = f"Find it; {Nothing()} where it is not."
kept.__doc__ = "Whether it is kept."
"""
    )
    command = [sys.executable, "-c", PROCESS, str(tmp_path)]
    read = [
        json.loads(subprocess.check_output(command, env=os.environ | {"PYTHONHASHSEED": seed}))
        for seed in "12"
    ]

    assert read[0] == read[1]
    said = {source.rpartition("/")[2]: text for _, source, text in read[0]}
    assert "def find(name, default=..., of=...): ..." in said["placed.find"]
    assert "<placed.Nothing object> where it is not." in said["placed.find"]
    assert "placed.kept" in said


@pytest.mark.parametrize(("package", "least"), [("numpy", 5000), ("requests", 200)])
def test_an_installed_package_has_its_rows_and_their_signatures_are_python(package, least):
    pytest.importorskip(package)

    made, skips = rows(packages=[package])

    assert len(made) > least
    assert len({row.id for row in made}) == len(made)
    stubs = [s for row in made for s in re.findall(r"```python\n(def .*: \.\.\.)\n```", row.text)]
    assert len(stubs) > least / 2
    assert [ast.parse(stub) for stub in stubs]
    assert not skips


def test_a_package_that_is_not_there_is_told():
    with pytest.raises(SourceError, match="the package 'no_such_package' cannot be imported"):
        rows(packages=["no_such_package"])


def test_without_the_parsers_the_remedy_is_told(monkeypatch):
    monkeypatch.delitem(sys.modules, "trainer.sources.docstrings")
    monkeypatch.setitem(sys.modules, "griffe", None)

    with pytest.raises(SourceError, match=r"pip install 'headrace\[docs\]'"):
        rows(packages=["requests"])
