"""What must not be kept: secrets always, personal data where routes.yaml says so.

What is found is replaced by a pseudonym, `<email:1f0c2a9e>`: the same one for the same value
throughout a conversation, however it is written, so that a tool's arguments still match the text
they were taken from. It is a keyed hash: without the key nobody can try values until one fits.

JSON inside of strings (a tool call's arguments, a tool's result) is read and written as JSON, so
that no escape hides a value. Names of fields are texts like any other. Data URLs are not looked
into.
"""

from __future__ import annotations

import functools
import hashlib
import hmac
import os
import re
import secrets
from collections.abc import Callable, Iterable, Mapping, Sequence
from pathlib import Path
from typing import NamedTuple, Protocol

import msgspec
from cachetools import LRUCache

from proxy.protocol import tools_in
from proxy.protocol.recognise import HINTS, PERSONAL, SECRETS, Finder, Hints, has_one, known

MAX_DEPTH = 8
"""JSON within JSON is followed so deep; deeper it is treated as text. Chosen: agents nest two."""

_PSEUDONYM = re.compile(r"<[a-z_]+:[0-9a-f]{8}>")
_DIGITS = re.compile(r"\d(?:\D{0,3}+\d){5}")
"""Every personal datum that we know has an @, or six digits that stand near each other."""
_DIGITS_IN_JSON = re.compile(r"\d(?:\D{0,12}+\d){5}")
_ASCII_DIGITS_IN_JSON = re.compile(rb"[0-9](?:[^0-9]{0,12}+[0-9]){5}")
"""The same for JSON as it is written, where an escape may stand for a character."""
_FIELD_WORDS = ("pass", "secret", "key", "token", "auth", "cookie")
"""One of these is in the name of every field that _SECRET_FIELDS knows."""
_HIDING = (b"@", b"\\u", b"\\\\\\\\")
_NO_DIGITS = bytes(set(range(256)) - set(b"0123456789"))
_PLAIN = re.compile(r"[A-Za-z0-9_.-]+")
_SHORT = 2048
"""Characters of a text that is remembered when it is clean: names, schemas, system prompts and a
conversation's earlier messages come again with every request."""
_REMEMBERED = 2048
"""Such texts: 4 MiB in all."""
_REMEMBERED_TOOLS = 8 * 1024 * 1024
"""Bytes of lists of tools, of at most 1 MiB each (tools_in)."""
_SECRET_FIELDS = re.compile(
    r"pass(word|wd|phrase)|(client_)?secret|(x_)?api_?key|(access|refresh|id|auth)_token"
    r"|(proxy_)?authorization|(private|secret|access)_key|(set_)?cookie"
)
"""Fields whose text is a secret whatever it looks like; `-` counts as `_`."""


class Names(Protocol):
    """What stands in a value's place."""

    def name(self, kind: str, value: str) -> str:
        """`<kind:…>`, eight hexadecimal digits; the same for the same value."""


class Pseudonyms(NamedTuple):
    """Names for values, consistent within one conversation."""

    key: bytes
    conversation: str
    """Tenant and conversation."""

    def name(self, kind: str, value: str) -> str:
        """The pseudonym of a value; spaces, separators and case make no difference."""
        plain = "".join(filter(str.isalnum, value)).casefold() or value
        text = f"{self.conversation}\0{kind}\0{plain}".encode("utf-8", "surrogatepass")
        digest = hmac.digest(self.key, text, hashlib.sha256).hex()
        return f"<{kind}:{digest[:8]}>"


_NOBODY = Pseudonyms(b"", "")
"""For whom a text is only looked through."""


class Redactor:
    """Takes out of JSON values what must not be kept. Pure, but for its key."""

    def __init__(
        self,
        key: bytes | Callable[[], bytes],
        *,
        personal: Iterable[str] = tuple(PERSONAL),
        known_secrets: Sequence[str] = (),
    ) -> None:
        """`personal`: names in PERSONAL; `known_secrets`: texts never kept, such as our keys.

        A key that is a function is fetched when it is needed; what that raises is passed on.
        """
        self._given_key = key
        self._secrets = {**SECRETS, **({"secret": known(known_secrets)} if known_secrets else {})}
        self._personal: Mapping[str, Finder] = {name: PERSONAL[name] for name in personal}
        self._known = tuple(known_secrets)
        self._hints = Hints.of(HINTS)
        self._hints_in_json = Hints.of([*HINTS, *_FIELD_WORDS, *map(_plainest, known_secrets)])
        self._is_clean = functools.lru_cache(_REMEMBERED)(self._finds_nothing)
        self._clean_tools: LRUCache[bytes, int] = LRUCache(_REMEMBERED_TOOLS, int)
        """Lists of tools, as JSON, in which nothing was found, and how long they are."""

    @functools.cached_property
    def _key(self) -> bytes:
        return self._given_key if isinstance(self._given_key, bytes) else self._given_key()

    def redact(self, value: object, conversation: str) -> object:
        """The same plain value (dict, list, str, …) without what must not be kept."""
        return self.renamed(value, Pseudonyms(self._key, conversation))

    def renamed(self, value: object, names: Names) -> object:
        """The same, with names of the caller's."""
        return Redaction(self, names).value(value)

    def redact_json(self, content: bytes, conversation: str) -> bytes:
        """The same for a JSON document; itself where nothing need be taken out.

        Else it is written anew: a field that occurs twice occurs once.
        """
        tools = tools_in.find(content)
        if tools is not None and not self._has_clean(tools.json):
            tools = None
        rest = content if tools is None else tools.cut(content)
        if self._is_clean_json(rest):
            return content
        cleaned = self.redact(msgspec.json.decode(rest), conversation)
        if tools is not None and isinstance(cleaned, dict):
            cleaned["tools"] = msgspec.Raw(tools.json)
        return msgspec.json.encode(cleaned)

    def within(self, conversation: str) -> Redaction:
        """For the values of one conversation."""
        return Redaction(self, Pseudonyms(self._key, conversation))

    def text(self, text: str, names: Names) -> str:
        """A text without what must not be kept."""
        if len(text) < _SHORT and self._is_clean(text):
            return text
        return self._replaced(text, names)

    def _is_clean_json(self, content: bytes) -> bool:
        """Whether a document is clean, as far as its bytes tell without being read."""
        if any(sign in content for sign in _HIDING) or _has_digits(content):
            return False
        return not has_one(content.decode(), self._hints_in_json)

    def _finds_nothing(self, text: str) -> bool:
        return self._replaced(text, _NOBODY) == text

    def _has_clean(self, tools: bytes) -> bool:
        """Whether nothing need be taken out of tools: looked through once, as they come again with
        every request."""
        if tools in self._clean_tools:
            return True
        value = msgspec.json.decode(tools)
        is_clean = bool(Redaction(self, _NOBODY).value(value) == value)
        if is_clean:
            self._clean_tools[tools] = len(tools)
        return is_clean

    def _replaced(self, text: str, names: Names) -> str:
        if has_one(text, self._hints) or any(secret in text for secret in self._known):
            text = _replaced(text, self._secrets, names)
        if "@" in text or _DIGITS.search(text):
            text = _replaced(text, self._personal, names)
        return text


class Redaction:
    """Takes out of values, however they are nested, what must not be kept."""

    def __init__(self, redactor: Redactor, names: Names) -> None:
        self._redactor = redactor
        self._names = names

    def value(self, value: object, depth: int = 0) -> object:
        """The same plain value without it; `depth`: so many texts of JSON are around it."""
        match value:
            case str():
                return self.text(value, depth)
            case dict():
                return {self._key(key): self._field(key, one, depth) for key, one in value.items()}
            case list():
                return [self.value(one, depth) for one in value]
            case int() if abs(value) >= 10**8 and not isinstance(value, bool):
                return self._number(value)
            case _:
                return value

    def _key(self, key: str) -> str:
        return self._redactor.text(key, self._names)

    def _field(self, key: str, value: object, depth: int) -> object:
        if isinstance(value, str) and value and _is_secret(key) and not _is_pseudonym(value):
            return self._names.name("secret", value)
        return self.value(value, depth)

    def _number(self, value: int) -> object:
        """A number that is a card's, for instance, becomes a text."""
        text = self._redactor.text(str(value), self._names)
        return value if text == str(value) else text

    def text(self, text: str, depth: int = 0) -> str:
        """The same text without it; JSON is read and written as JSON."""
        if text.startswith("data:") and ";base64," in text[:128]:
            return text
        if depth < MAX_DEPTH and text.lstrip()[:1] in ("{", "["):
            inner = _parsed(text)
            if inner is not None:
                cleaned = self.value(inner, depth + 1)
                is_clean = cleaned == inner and not _hides(text, inner)
                return text if is_clean else msgspec.json.encode(cleaned).decode()
        return self._redactor.text(text, self._names)


def _has_digits(content: bytes) -> bool:
    """Whether there are six digits near each other, in any script."""
    if not content.isascii():
        return _DIGITS_IN_JSON.search(content.decode()) is not None
    if len(content.translate(None, _NO_DIGITS)) < 6:
        return False
    return _ASCII_DIGITS_IN_JSON.search(content) is not None


def _plainest(secret: str) -> str:
    """The longest part of a secret that looks the same in every text that holds it."""
    return max(_PLAIN.findall(secret), key=len, default="").casefold()


def _is_pseudonym(text: str) -> bool:
    return _PSEUDONYM.fullmatch(text) is not None


@functools.lru_cache(maxsize=4096)
def _is_secret(field: str) -> bool:
    return _SECRET_FIELDS.fullmatch(field.lower().replace("-", "_")) is not None


def _parsed(text: str) -> dict[str, object] | list[object] | None:
    try:
        value: object = msgspec.json.decode(text)
    except (ValueError, RecursionError):
        return None
    return value if isinstance(value, dict | list) else None


def _hides(text: str, value: object) -> bool:
    """Whether a JSON text may say more than was read from it: a field that occurs twice."""
    fewer = msgspec.json.encode(value).count(b":") < text.count(":")
    return fewer or "\\u003a" in text.lower()


def _replaced(text: str, finders: Mapping[str, Finder], names: Names) -> str:
    for kind, find in finders.items():
        text = find(text, lambda value, kind=kind: names.name(kind, value))  # type: ignore[misc]
    return text


def own_key(directory: Path) -> bytes:
    """The key of this record's pseudonyms (32 bytes), made when there is none; raises OSError."""
    path = directory / "pseudonyms.key"
    if path.exists():
        return path.read_bytes()
    directory.mkdir(mode=0o700, parents=True, exist_ok=True)
    fresh = directory / f".pseudonyms-{secrets.token_hex(4)}.new"
    with open(os.open(fresh, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600), "wb") as file:
        file.write(os.urandom(32))
    try:
        # Whole or not at all, and never over another process's.
        os.link(fresh, path)
    except FileExistsError:
        pass
    finally:
        fresh.unlink()
    return path.read_bytes()
