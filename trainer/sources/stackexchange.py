"""A Stack Exchange data dump: questions and the answers that their askers accepted.

Posts.xml has one `<row …/>` a line, so that each line is parsed on its own: no document type, no
entity of its own, nothing fetched, and a broken line is one broken row. A question waits in memory
for its answer, which as a rule comes soon after it.
Source: Stack Exchange data dump, readme.txt. Licence: `ContentLicense` of each post.
"""

from __future__ import annotations

import fnmatch
import re
from collections.abc import Iterator, Mapping
from datetime import UTC, datetime
from typing import TYPE_CHECKING

import msgspec

from proxy.protocol.openai import Message
from trainer.errors import SourceError
from trainer.formats.base import BadRow, row
from trainer.recipe.sources import StackExchangeSettings
from trainer.rows import Row
from trainer.sources import files
from trainer.sources.base import Skips
from trainer.sources.files import Line

if TYPE_CHECKING:
    from trainer.sources.posts import Reader

_FRAME = (b"<?xml", b"<posts>", b"</posts>")
"""What begins a line that is no post, and is as it should be."""
_TAGS = re.compile(r"[^<>|]+")


class _Question(msgspec.Struct, frozen=True):
    title: str
    body: str
    author: str


class StackExchangeSource:
    """Questions with an accepted answer, both with the score that the settings demand."""

    def __init__(self, settings: StackExchangeSettings, skips: Skips) -> None:
        self._settings = settings
        self._skips = skips

    def rows(self) -> Iterator[Row]:
        reader = _reader()
        for path in files.find(self._settings.paths):
            waiting: dict[str, _Question] = {}
            for line in files.lines(path, self._skips):
                if not line.content.strip().startswith(_FRAME):
                    yield from self._line(line, waiting, reader)
            self._skips.left_out["accepted_answer_not_found"] += len(waiting)

    def _line(self, line: Line, waiting: dict[str, _Question], reader: Reader) -> Iterator[Row]:
        try:
            post = reader.post(line.content)
            match post.get("PostTypeId"):
                case "1":  # a question
                    self._ask(post, waiting)
                case "2" if post.get("Id") in waiting:
                    yield from self._answered(post, waiting.pop(post["Id"]), reader)
        except BadRow as error:
            self._skips.add(line.place, error.reason, str(error))

    def _ask(self, post: Mapping[str, str], waiting: dict[str, _Question]) -> None:
        reason = self._unwanted(post)
        if reason is not None:
            self._skips.left_out[reason] += 1
            return
        question = _Question(_field(post, "Title"), _field(post, "Body"), _author(post))
        waiting[post["AcceptedAnswerId"]] = question

    def _unwanted(self, post: Mapping[str, str]) -> str | None:
        tags = _TAGS.findall(post.get("Tags", ""))
        if not any(fnmatch.fnmatchcase(t, g) for t in tags or [""] for g in self._settings.tags):
            return "other_tags"
        if _score(post) < self._settings.min_score:
            return "low_score"
        return None if post.get("AcceptedAnswerId") else "no_accepted_answer"

    def _answered(
        self, post: Mapping[str, str], question: _Question, reader: Reader
    ) -> Iterator[Row]:
        if _score(post) < self._settings.min_score:
            self._skips.left_out["low_score"] += 1
            return
        asked = f"{question.title}\n\n{reader.text(question.body)}"
        answer = row(
            [Message(role="user", content=asked)], (), text=reader.text(_field(post, "Body"))
        )
        url = f"https://{self._settings.site}/a/{_field(post, 'Id')}"
        yield msgspec.structs.replace(
            answer,
            source=url,
            license=_field(post, "ContentLicense"),
            author=f"{_author(post)} (answer), {question.author} (question)",
            at=_time(post),
            group=url,
        )


def _reader() -> Reader:
    try:
        from trainer.sources.posts import Reader
    except ImportError as error:
        raise SourceError(
            f"the stackexchange source needs the package {error.name!r};"
            " run: pip install 'headrace[docs]'"
        ) from error
    return Reader()


def _field(post: Mapping[str, str], name: str) -> str:
    try:
        return post[name]
    except KeyError:
        raise BadRow("missing_or_wrong_field", f"the post has no {name}") from None


def _score(post: Mapping[str, str]) -> int:
    try:
        return int(_field(post, "Score"))
    except ValueError:
        raise BadRow("missing_or_wrong_field", "its Score is no number") from None


def _author(post: Mapping[str, str]) -> str:
    """The name that is shown, else the account's number; the licence asks for one."""
    return post.get("OwnerDisplayName") or f"user {post.get('OwnerUserId', 'unknown')}"


def _time(post: Mapping[str, str]) -> float | None:
    try:
        return datetime.fromisoformat(post["CreationDate"]).replace(tzinfo=UTC).timestamp()
    except (KeyError, ValueError):
        return None
