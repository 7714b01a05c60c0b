"""Posts of a data dump, each one line of XML with HTML in it, by parsers that fetch nothing.

Needs the extra `docs`.
"""

from __future__ import annotations

from collections.abc import Mapping

from lxml import etree

from trainer.formats.base import BadRow
from trainer.sources import html

_parser = etree.XMLParser(
    resolve_entities=False, no_network=True, load_dtd=False, huge_tree=False, remove_pis=True
)


class Reader:
    """Reads what a line of Posts.xml holds."""

    def post(self, line: bytes) -> Mapping[str, str]:
        """The attributes of a `<row …/>`; raises BadRow for any other line."""
        if not line.lstrip().startswith(b"<row"):
            raise BadRow("no_row", "the line is no <row …/>")
        try:
            return dict(etree.fromstring(line.strip(), _parser).attrib)
        except (etree.LxmlError, ValueError) as error:
            raise BadRow("not_xml", str(error)) from None

    def text(self, body: str) -> str:
        """A post's HTML as text; raises BadRow."""
        return html.text(html.parse(body))
