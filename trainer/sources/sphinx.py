"""A site that Sphinx made, in a folder: the things that it documents, and its chapters.

Things are `dl.py` entries, found in every page; a chapter is a section with a heading, text and
Python code. The inventory, `objects.inv`, names project and version.
Source: Sphinx documentation, "HTML builder" and "Inventory files".
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from pathlib import Path

import msgspec

from trainer.errors import SourceError
from trainer.formats.alpaca import question_of
from trainer.formats.base import BadRow, row
from trainer.recipe.sources import PythonDocsSettings
from trainer.rows import Row
from trainer.sources.base import Skips
from trainer.sources.html import Element, first_code, parse, python_in, text
from trainer.sources.lessons import lessons
from trainer.sources.thing import Thing

_MAX_PAGE = 32 * 1024 * 1024
_HEADINGS = ("h1", "h2", "h3", "h4")
_SPACES = re.compile(r"\s+")


class Site:
    """One folder of pages."""

    def __init__(self, folder: Path, settings: PythonDocsSettings, skips: Skips) -> None:
        self._folder = folder
        self._settings = settings
        self._skips = skips
        self._library = _library(folder)

    def rows(self) -> Iterator[Row]:
        """Lessons of each thing, page by page; then the page's chapters."""
        for path in sorted(self._folder.rglob("*.html")):
            page = self._page(path)
            if page is not None:
                yield from self._things(page, path)
                if "chapters" in self._settings.lessons:
                    yield from self._chapters(page, path)

    def _page(self, path: Path) -> Element | None:
        if path.stat().st_size > _MAX_PAGE:
            self._skips.add(str(path), "file_too_long")
            return None
        try:
            return parse(path.read_bytes())
        except BadRow as error:
            self._skips.add(str(path), error.reason, str(error))
            return None

    def _named(self, path: Path, anchor: str) -> str:
        return f"python_docs:{self._library}/{path.relative_to(self._folder)}#{anchor}"

    def _things(self, page: Element, path: Path) -> Iterator[Row]:
        for entry in page.iter("dl"):
            if "py" in entry.get("class", "").split():
                for thing in self._entry(entry, path):
                    yield from lessons(thing, self._settings)

    def _entry(self, entry: Element, path: Path) -> Iterator[Thing]:
        heads = [dt for dt in entry.findall("dt") if dt.get("id")]
        body = entry.find("dd")
        if not heads or body is None:
            return
        name = heads[0].get("id")
        yield Thing(
            name=name,
            library=self._library,
            signature="\n".join(map(_signature, entry.findall("dt"))),
            about=_about(body),
            parameters=_parameters(body),
            examples=tuple(_examples(body)),
            source=self._named(path, name),
            license=self._settings.license,
        )

    def _chapters(self, page: Element, path: Path) -> Iterator[Row]:
        title = next((_heading(h) for h in page.iter("h1")), path.stem)
        for section in page.iter("section", "div"):
            if section.tag == "section" or "section" in section.get("class", "").split():
                yield from self._chapter(section, title, path)

    def _chapter(self, section: Element, title: str, path: Path) -> Iterator[Row]:
        heading = next((_heading(h) for h in section if h.tag in _HEADINGS), "")
        own = [child for child in section if _is_text(child)]
        if not heading or not any(first_code(child) for child in own):
            return
        about = f"Explain “{heading}”" + (f" ({title})" if title != heading else "") + "."
        anchor = section.get("id", "")
        yield msgspec.structs.replace(
            row([question_of(about, f"Library: {self._library}")], (), text=_joined(own)),
            source=self._named(path, anchor),
            license=self._settings.license,
            group=f"{self._library}:{path.stem}#{anchor}",
        )


def _library(folder: Path) -> str:
    """`Python 3.11`, from the inventory's head."""
    try:
        with (folder / "objects.inv").open("rb") as file:
            head = [file.readline(200).decode(errors="replace").strip() for _ in range(3)]
    except OSError as error:
        raise SourceError(
            f"{folder}: {error.strerror}; name the folder of a site that Sphinx made, the one "
            "with objects.inv"
        ) from error
    return " ".join(line.partition(":")[2].strip() for line in head[1:]).strip()


def _signature(dt: Element) -> str:
    said = "".join(
        "" if "headerlink" in part.get("class", "") or part.tag == "a" else _whole(part)
        for part in dt
    )
    return _SPACES.sub(" ", said).replace("[source]", "").strip()


def _whole(element: Element) -> str:
    return "".join(element.itertext()) + (element.tail or "")


def _about(body: Element) -> str:
    """The paragraphs before the first list, code or entry, three at most."""
    said: list[str] = []
    for child in body:
        if child.tag != "p" or len(said) == 3:
            break
        said.append(text(child))
    return "\n\n".join(said)


def _parameters(body: Element) -> str:
    """The field list's parameters, one a line."""
    for fields in body.findall("dl"):
        if "field-list" not in fields.get("class", ""):
            continue
        for dt, dd in zip(fields.findall("dt"), fields.findall("dd"), strict=False):
            if "".join(dt.itertext()).strip().rstrip(":") == "Parameters":
                return _list(dd)
    return ""


def _list(dd: Element) -> str:
    inner = dd.find("dl")
    if inner is None:
        return text(dd)
    pairs = zip(inner.findall("dt"), inner.findall("dd"), strict=False)
    return "\n".join(
        f"- `{_SPACES.sub(' ', ''.join(dt.itertext())).strip()}`: "
        + _SPACES.sub(" ", "".join(dd.itertext())).strip()
        for dt, dd in pairs
    )


def _examples(body: Element) -> Iterator[tuple[str, str]]:
    """Each block of Python directly in a description, with the paragraph before it."""
    before = ""
    for child in body:
        if child.tag == "p":
            before = "" if "rubric" in child.get("class", "") else text(child)
        elif child.tag == "div" and "highlight" in child.get("class", ""):
            code = next((python_in(pre) for pre in child.iter("pre")), "")
            if code:
                yield before, code
            before = ""


def _heading(heading: Element) -> str:
    said = "".join(
        (
            heading.text or "",
            *(_whole(c) for c in heading if "headerlink" not in c.get("class", "")),
        )
    )
    return _SPACES.sub(" ", said).strip(" ¶")


def _is_text(child: Element) -> bool:
    """Paragraphs, lists, code and notes: what belongs to a section itself, not to one inside."""
    if child.tag == "div":
        return "section" not in child.get("class", "").split()
    return child.tag in ("p", "ul", "ol", "pre", "blockquote")


def _joined(parts: list[Element]) -> str:
    return "\n\n".join(filter(None, map(text, parts)))
