"""HTML as text with Markdown's code blocks, and code with its prompts taken off.

The parser is lxml's, which mends what is broken and bounds depth and size. Needs the extra `docs`.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from typing import Any, TypeAlias

from lxml import etree
from lxml import html as parser

from trainer.formats.base import BadRow

Element: TypeAlias = Any
"""An element of lxml's tree."""

_BLOCKS = frozenset({
    "article", "blockquote", "body", "dd", "div", "dl", "dt", "h1", "h2", "h3", "h4", "h5", "h6",
    "html", "li", "main", "ol", "p", "pre", "section", "table", "tbody", "thead", "tr", "ul",
})  # fmt: skip
_UNREAD = frozenset({"script", "style", "head", "svg", "button"})
_SPACES = re.compile(r"\s+")
_PROMPT = re.compile(r"^(>>>|\.\.\.|In \[\d+\]:|\s*\.{3,}:) ?")
_PRINTED = re.compile(r"^Out\[\d+\]: ?")
_PYTHON = ("python", "pycon", "default", "ipython")


def parse(content: bytes | str) -> Element:
    """The document's tree; raises BadRow for what has none."""
    if isinstance(content, str):
        content = content.encode(errors="replace")
    try:
        # Comments and processing instructions would stand in the tree as elements without a tag.
        reads = parser.HTMLParser(encoding="utf-8", remove_comments=True, remove_pis=True)
        return parser.fromstring(content, parser=reads)
    except (etree.LxmlError, ValueError) as error:
        raise BadRow("no_html", str(error)) from None


def text(element: Element) -> str:
    """What an element says: paragraphs apart by an empty line, code in ``` blocks."""
    said = (block.strip("\n") for block in _paragraphs(element))
    return "\n\n".join(block for block in said if block.strip())


def first_code(element: Element) -> str:
    """The first block of Python in an element, without prompts; "" where there is none."""
    return next((code for pre in element.iter("pre") if (code := python_in(pre))), "")


def python_in(pre: Element) -> str:
    """The Python of a `pre`; "" where it is said to be another language, or has no code."""
    around = " ".join(
        e.get("class", "") for e in (pre, pre.getparent(), *_above(pre)) if e is not None
    )
    named = re.findall(r"highlight-(\w+)", around)
    if named and not named[0].startswith(_PYTHON):
        return ""
    return unprompted("".join(pre.itertext()))


def _above(pre: Element) -> list[Element]:
    parent = pre.getparent()
    return [parent.getparent()] if parent is not None else []


def unprompted(code: str) -> str:
    """An interactive session as code: prompts go, what was printed becomes a comment."""
    lines = code.strip("\n").splitlines()
    if not any(_PROMPT.match(line) for line in lines):
        return "\n".join(lines)
    return "\n".join(filter(None, map(_unprompted, lines)))


def _unprompted(line: str) -> str:
    prompt = _PROMPT.match(line)
    if prompt is not None:
        return line[prompt.end() :].rstrip()
    printed = _PRINTED.sub("", line).rstrip()
    return f"# {printed}" if printed else ""


def fenced(code: str, language: str = "python") -> str:
    """Code as a block of Markdown."""
    return f"```{language}\n{code}\n```"


# ---------------------------------------------------------------- the walk


def _paragraphs(element: Element) -> Iterator[str]:
    """The blocks in an element, in order; what stands between blocks is a block too."""
    if element.tag == "pre":
        code = python_in(element)
        yield fenced(code) if code else fenced("".join(element.itertext()).strip("\n"), "")
        return
    line = [element.text or ""]
    for child in element:
        if _is_block(child):
            yield _line(line, element)
            line = []
            yield from _paragraphs(child)
        else:
            line.append(_inline(child))
        line.append(child.tail or "")
    yield _line(line, element)


def _is_block(element: Element) -> bool:
    return element.tag in _BLOCKS


def _line(parts: list[str], element: Element) -> str:
    said = _SPACES.sub(" ", "".join(parts)).strip()
    return f"- {said}" if said and element.tag == "li" else said


def _inline(element: Element) -> str:
    if not isinstance(element.tag, str) or element.tag in _UNREAD:
        return ""
    if "headerlink" in element.get("class", ""):
        return ""
    if element.tag in ("code", "tt") and (said := "".join(element.itertext()).strip()):
        return f"`{said}`"
    return "".join(
        [element.text or "", *(f"{_inline(child)}{child.tail or ''}" for child in element)]
    )
