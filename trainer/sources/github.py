"""Issues and discussions of GitHub, from a JSON export: a problem and what solved it.

A discussion's solution is the comment that was marked as the answer. Of a closed issue it is the
last comment of somebody who maintains the repository, unless they asked themselves; most issues
have none. Fields are those of `gh … --json` and of the REST and GraphQL interfaces.
Source: GitHub REST API reference, "Issues", and GraphQL reference, `Discussion`.
"""

from __future__ import annotations

from collections.abc import Iterator
from datetime import datetime

import msgspec

from proxy.protocol.openai import Message
from trainer.formats.base import BadRow, decoded, row
from trainer.recipe.sources import GithubSettings
from trainer.rows import Row
from trainer.sources import files
from trainer.sources.base import Skips
from trainer.sources.files import Line

_MAINTAINERS = ("OWNER", "MEMBER", "COLLABORATOR")


class _Person(msgspec.Struct, frozen=True):
    login: str = ""


class _Comment(msgspec.Struct, frozen=True, kw_only=True):
    body: str = ""
    author: _Person | None = None
    user: _Person | None = None
    association: str = msgspec.field(name="authorAssociation", default="")
    rest_association: str = msgspec.field(name="author_association", default="")

    @property
    def by(self) -> str:
        return (self.author or self.user or _Person()).login

    @property
    def is_maintainers(self) -> bool:
        return (self.association or self.rest_association) in _MAINTAINERS


class _Nodes(msgspec.Struct, frozen=True):
    nodes: list[_Comment] = []


class _Thread(msgspec.Struct, frozen=True, kw_only=True):
    title: str
    body: str | None = ""
    url: str = ""
    html_url: str = ""
    author: _Person | None = None
    user: _Person | None = None
    state: str = ""
    created: str = msgspec.field(name="createdAt", default="")
    rest_created: str = msgspec.field(name="created_at", default="")
    answer: _Comment | None = None
    comments: msgspec.Raw = msgspec.Raw(b"[]")

    @property
    def by(self) -> str:
        return (self.author or self.user or _Person()).login


class GithubSource:
    """Threads that have a solution."""

    def __init__(self, settings: GithubSettings, skips: Skips) -> None:
        self._settings = settings
        self._skips = skips

    def rows(self) -> Iterator[Row]:
        for path in files.find(self._settings.paths):
            for line in files.read(path, self._skips):
                found = self._row(line)
                if found is not None:
                    yield found

    def _row(self, line: Line) -> Row | None:
        try:
            thread = decoded(line.content, _Thread)
            solution = thread.answer or _solution(thread)
        except BadRow as error:
            self._skips.add(line.place, error.reason, str(error))
            return None
        if solution is None or not solution.body.strip():
            self._skips.left_out["no_solution"] += 1
            return None
        return self._made(thread, solution, line)

    def _made(self, thread: _Thread, solution: _Comment, line: Line) -> Row:
        asked = f"{thread.title}\n\n{thread.body or ''}".strip()
        url = thread.html_url or thread.url or f"github:{line.place}"
        return msgspec.structs.replace(
            row([Message(role="user", content=asked)], (), text=solution.body.strip()),
            source=url,
            license=self._settings.license,
            author=f"{solution.by or 'unknown'} (answer), {thread.by or 'unknown'} (question)",
            at=_time(thread.created or thread.rest_created),
            group=url,
        )


def _solution(thread: _Thread) -> _Comment | None:
    if thread.state.lower() != "closed":
        return None
    told = [c for c in _comments(thread) if c.is_maintainers and c.by != thread.by]
    return told[-1] if told else None


def _comments(thread: _Thread) -> list[_Comment]:
    """A list, or GraphQL's `nodes`; the REST interface has their number, which tells nothing."""
    given = bytes(thread.comments)
    match given[:1]:
        case b"[":
            return decoded(given, list[_Comment])
        case b"{":
            return decoded(given, _Nodes).nodes
        case _:
            return []


def _time(said: str) -> float | None:
    try:
        return datetime.fromisoformat(said).timestamp()
    except ValueError:
        return None
