"""Text that may hold anything, as people can be shown it: on a page, or in a terminal.

A terminal obeys what it is sent: sequences that begin with ESC, or with the control characters of
ISO 6429 above 0x80, set its title, move its cursor, write to its clipboard. What models, tools and
clients said reaches one through here only.
"""

from __future__ import annotations

import re
import unicodedata
from collections.abc import Callable

_UNUSUAL = re.compile(r"[^\n\t -~]+")
_INVISIBLE = ("Cc", "Cf", "Cs", "Co")


def shown(text: object) -> str:
    """A text whose invisible letters, those that turn the direction included, are named; line ends
    and tabs stay."""
    return _UNUSUAL.sub(_named_in, str(text))


def on_one_line(text: object) -> str:
    """The same, line ends and tabs named too: nobody's text makes a second line of a table."""
    return "".join(_name(letter) if letter in "\n\t" else letter for letter in shown(text))


def escaped(text: str) -> str:
    """JSON whose invisible letters are written as `\\u202e`: the same, and to be seen."""
    return _UNUSUAL.sub(_escaped_in, text)


def _name(letter: str) -> str:
    return f"⟨U+{ord(letter):04X}⟩"


def _escape(letter: str) -> str:
    units = letter.encode("utf-16-be", "surrogatepass").hex()
    return "".join(f"\\u{units[at : at + 4]}" for at in range(0, len(units), 4))


def _named_in(found: re.Match[str]) -> str:
    return _replaced(found[0], _name)


def _escaped_in(found: re.Match[str]) -> str:
    return _replaced(found[0], _escape)


def _replaced(text: str, by: Callable[[str], str]) -> str:
    if text.isprintable():
        return text
    return "".join(
        by(letter) if unicodedata.category(letter) in _INVISIBLE else letter for letter in text
    )
