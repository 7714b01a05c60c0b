"""The record: what was asked, and whose answer to it may be learnt.

In this order: a person's demonstration; the cloud's answer, given to the client or in a shadow; the
answer of our own student, which says of itself that it is one (`Label.is_trusted`). What a later
request told of the called tools, thumbs, and whether somebody answered differently go along.
Two passes: the first collects what belongs to exchanges, the second makes rows, oldest first.
"""

from __future__ import annotations

import fnmatch
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, NamedTuple, TypeAlias

import msgspec

from proxy.errors import CannotStart
from proxy.protocol.agreement import compare
from proxy.protocol.exchange import CHAT, Answer, Attempt, Exchange, NewerRecord, ToolOutcome
from proxy.protocol.feedback import Feedback
from proxy.protocol.legacy import modern
from proxy.protocol.openai import ChatRequest, MalformedRequest, parse_request
from proxy.protocol.places import place
from proxy.protocol.sealing import SealError
from proxy.protocol.shadowed import Shadowed
from proxy.record.keys import keyring
from proxy.record.settings import ArchiveSettings, EncryptionSettings, RecordSettings
from trainer.conversation import fault, workflow
from trainer.errors import SourceError
from trainer.recipe.sources import ExchangesSettings
from trainer.rows import Label, Row
from trainer.sources.base import Skips

if TYPE_CHECKING:
    from proxy.record.shelf import Shelf

_Key: TypeAlias = tuple[str, str]
"""Tenant and id: what one tenant says is never joined to what is another's."""


class Heard(NamedTuple):
    """A request, and what the record holds about it."""

    exchange: Exchange
    answers: list[Attempt]
    """Whole answers, the client's first, then others, shadows last."""
    cloud: Attempt | None
    """The one of them that is a cloud's and counts; None where no cloud was asked."""
    thumb: bool | None
    """What somebody said of the client's answer, last."""


class ExchangesSource:
    """Completed chats that were kept in full."""

    def __init__(self, settings: ExchangesSettings, skips: Skips) -> None:
        self._settings = settings
        self._skips = skips

    def rows(self) -> Iterator[Row]:
        with translated(self._settings.directory):
            shelf, told = self._shelf, _Told(self._shelf, self._is_wanted)
            seen: Counter[_Key] = Counter()
            for exchange in shelf.exchanges():
                if self._is_counted(exchange) and self._is_spread(exchange, told, seen):
                    row = self._row(exchange, told)
                    if row is not None:
                        yield row

    def heard(self, since: float = 0.0) -> Iterator[Heard]:
        """Requests that can be rows, from then on (seconds since the epoch), with all that was
        said to them."""
        with translated(self._settings.directory):
            told = _Told(self._shelf, self._is_wanted, since)
            for exchange in self._shelf.exchanges(since):
                if self._is_wanted(exchange) and _unusable(exchange) is None:
                    yield told.heard(exchange)

    @cached_property
    def _shelf(self) -> Shelf:
        return open_shelf(self._settings, self._skips)

    def _is_wanted(self, exchange: Exchange | Shadowed) -> bool:
        return is_wanted(self._settings, exchange)

    def _is_counted(self, exchange: Exchange) -> bool:
        """Whether it is wanted and can be a row; that it cannot is told."""
        if not self._is_wanted(exchange):
            return False
        reason = _unusable(exchange)
        if reason is not None:
            self._skips.left_out[reason] += 1
        return reason is None

    def _is_spread(self, exchange: Exchange, told: _Told, seen: Counter[_Key]) -> bool:
        """Whether it is one of those that are taken of its conversation."""
        key, most = _conversation(exchange), self._settings.per_conversation
        number, count = seen[key], told.counts[key]
        seen[key] += 1
        if count <= most or any(number == (n + 1) * count // most - 1 for n in range(most)):
            return True
        self._skips.left_out["beyond_the_conversations_cap"] += 1
        return False

    def _row(self, exchange: Exchange, told: _Told) -> Row | None:
        try:
            request = modern(parse_request(bytes(exchange.request)))
        except MalformedRequest as error:
            self._skips.add(f"exchange:{exchange.id}", "no_chat_request", str(error))
            return None
        answer, label = told.label(exchange)
        reason = _unlearnable(request) or _empty(answer)
        if reason is not None:
            self._skips.left_out[reason] += 1
            return None
        return self._made(exchange, request, answer, label)

    def _made(self, exchange: Exchange, request: ChatRequest, answer: Answer, label: Label) -> Row:
        row = Row(
            messages=request.messages,
            functions=request.offered,
            calls=[call.function for call in answer.tool_calls],
            text=answer.text,
            domain=exchange.domain,
            tenant=exchange.tenant,
            label=label,
            source=f"exchange:{exchange.id}",
            license=self._settings.license,
            exchange=exchange.id,
            at=exchange.started_at,
            group=f"{exchange.tenant}:{exchange.conversation or exchange.id}",
        )
        placed = msgspec.structs.replace(row, cep=workflow(row, exchange.conversation))
        return placed if fault(placed) is None else row


# ---------------------------------------------------------------- which exchanges


def is_wanted(settings: ExchangesSettings, exchange: Exchange | Shadowed) -> bool:
    """Whether it, or what it is a shadow of, is of a tenant and a domain that the settings take."""
    return any(fnmatch.fnmatchcase(exchange.tenant, glob) for glob in settings.tenants) and any(
        fnmatch.fnmatchcase(exchange.domain, glob) for glob in settings.domains
    )


def _unusable(exchange: Exchange) -> str | None:
    """Why an exchange cannot be a row; None where it can."""
    if exchange.endpoint != CHAT:
        return "no_chat"
    if exchange.outcome != "completed" or not exchange.attempts:
        return f"outcome_{exchange.outcome}"
    return None if exchange.level == "full" else "not_kept_in_full"


def _unlearnable(request: ChatRequest) -> str | None:
    """Why nothing can be learnt from a request; None where something can."""
    if not all(message.is_plain_text for message in request.messages):
        return "not_plain_text"
    if any(tool.function is None for tool in request.tools or ()):
        return "custom_tools"
    return "tools_forbidden" if request.tools and request.tool_choice == "none" else None


def _empty(answer: Answer) -> str | None:
    if answer.finish_reason == "length":
        return "answer_cut_off"
    if answer.refusal:
        return "answer_refused"
    return None if answer.text or answer.tool_calls else "answer_empty"


def _conversation(exchange: Exchange) -> _Key:
    return exchange.tenant, exchange.conversation or exchange.id


# ---------------------------------------------------------------- whose answer


def _is_students(attempt: Attempt) -> bool:
    """Whether one of ours said it: an adapter, or the base model, which clouds are told from by the
    model that they name."""
    return attempt.adapter is not None or attempt.format is not None or attempt.model is None


class _Told:
    """What the record tells of exchanges elsewhere than in them."""

    def __init__(
        self, shelf: Shelf, is_wanted: Callable[[Exchange | Shadowed], bool], since: float = 0.0
    ) -> None:
        """Of exchanges from `since` on (seconds since the epoch): what is told of them is later."""
        self.counts: Counter[_Key] = Counter()
        """Conversation → its exchanges that can be rows."""
        self._outcomes: dict[tuple[str, str, str], ToolOutcome] = {}
        self._demonstrated: dict[_Key, Feedback] = {}
        self._approved: dict[_Key, Feedback] = {}
        self._shadows: dict[_Key, list[Attempt]] = {}
        for exchange in shelf.exchanges(since):
            if is_wanted(exchange):
                self._count(exchange)
        for feedback in shelf.feedback(since):
            self._hear(feedback)
        for shadowed in shelf.shadows(since):
            if shadowed.attempt.outcome == "completed" and is_wanted(shadowed):
                key = (shadowed.tenant, shadowed.exchange)
                self._shadows.setdefault(key, []).append(shadowed.attempt)

    def _count(self, exchange: Exchange) -> None:
        if _unusable(exchange) is None:
            self.counts[_conversation(exchange)] += 1
        for one in exchange.tool_results:
            key = (*_conversation(exchange), one.tool_call_id)
            self._outcomes[key] = one.outcome

    def _hear(self, feedback: Feedback) -> None:
        """The latest demonstration and the latest thumb of each exchange."""
        latest = {"demonstration": self._demonstrated, "boolean": self._approved}.get(feedback.kind)
        if latest is None or feedback.exchange is None:
            return
        key = (feedback.tenant, feedback.exchange)
        if key not in latest or latest[key].given_at <= feedback.given_at:
            latest[key] = feedback

    def label(self, exchange: Exchange) -> tuple[Answer, Label]:
        """The answer to learn, and who says so."""
        shown = exchange.attempts[-1]
        demonstrated = self._about(exchange, self._demonstrated)
        if demonstrated is not None and isinstance(demonstrated.value, Answer):
            return demonstrated.value, Label(kind="human", by=demonstrated.caller)
        teacher = self._cloud(exchange) or shown
        disputed = any(_differ(teacher.answer, a.answer) for a in self._answers(exchange))
        return teacher.answer, self._said(exchange, teacher, disputed)

    def heard(self, exchange: Exchange) -> Heard:
        thumb = self._about(exchange, self._approved)
        return Heard(
            exchange,
            self._answers(exchange),
            self._cloud(exchange),
            bool(thumb.value) if thumb is not None else None,
        )

    def _cloud(self, exchange: Exchange) -> Attempt | None:
        return next((a for a in self._answers(exchange) if not _is_students(a)), None)

    def _answers(self, exchange: Exchange) -> list[Attempt]:
        """Whole answers to the request, the client's first."""
        others = [a for a in exchange.attempts[:-1] if a.outcome == "completed"]
        shadows = self._shadows.get((exchange.tenant, exchange.id), [])
        return [exchange.attempts[-1], *others, *shadows]

    def _said(self, exchange: Exchange, teacher: Attempt, disputed: bool) -> Label:
        student = _is_students(teacher)
        by = teacher.adapter if student else teacher.model
        shown = not _differ(teacher.answer, exchange.attempts[-1].answer)
        thumb = self._about(exchange, self._approved) if shown else None
        return Label(
            kind="log",
            by=by or teacher.backend,
            tool_outcome=self._outcome(exchange) if shown else None,
            student=student,
            approved=bool(thumb.value) if thumb is not None else None,
            disputed=disputed,
        )

    def _outcome(self, exchange: Exchange) -> ToolOutcome | None:
        """Of the calls that the client was given: an error if one failed, None if one is untold."""
        ids = [call.id for call in exchange.attempts[-1].answer.tool_calls]
        told = [self._outcomes.get((*_conversation(exchange), id)) for id in ids]
        if "error" in told:
            return "error"
        return "ok" if told and None not in told else None

    def _about(self, exchange: Exchange, heard: dict[_Key, Feedback]) -> Feedback | None:
        """The latest of what names the exchange by its own id or by its request's."""
        ids = (exchange.id, exchange.request_id)
        found = [heard[exchange.tenant, id] for id in ids if (exchange.tenant, id) in heard]
        return max(found, key=lambda feedback: feedback.given_at, default=None)


def _differ(one: Answer, other: Answer) -> bool:
    """Whether two answers contradict each other; texts that rules cannot compare do not."""
    agreement = compare(one, other)
    return not agreement.agrees and agreement.kind != "not_comparable"


# ---------------------------------------------------------------- opening


def open_shelf(settings: ExchangesSettings, skips: Skips) -> Shelf:
    """The record, for reading; bytes of it that are no record are told to `skips`. Raises
    SourceError."""
    try:
        from proxy.record.archive import open_archive
        from proxy.record.shelf import Shelf
    except ImportError as error:
        raise SourceError(
            f"the exchanges source needs the package {error.name!r};"
            " run: pip install 'headrace[record]'"
        ) from error
    directory = place(settings.directory)
    if not directory.is_dir():
        raise SourceError(
            f"{directory}: there is no such record; `record.directory` of the proxy's routes.yaml"
            " names it"
        )
    record = _record(settings, directory)

    def damaged(path: Path, offset: int) -> None:
        skips.add(f"{path}@{offset}", "segment_damaged", "bytes that are no record")

    return Shelf(directory, open_archive(record), keyring(record), damaged)


def _record(settings: ExchangesSettings, directory: Path) -> RecordSettings:
    """The part of the proxy's settings that says where the record is and how it is read."""
    archive = ArchiveSettings(
        url=settings.archive or str(directory / "archive"), options=settings.options
    )
    keys = {id: f"file:{place(path)}" for id, path in settings.keys.items()}
    sealed = EncryptionSettings(use=next(iter(keys)), keys=keys) if keys else None
    return RecordSettings(directory=directory, archive=archive, encryption=sealed)


@contextmanager
def translated(directory: str) -> Iterator[None]:
    """Reading the record raises SourceError."""
    try:
        yield
    except (CannotStart, SealError, NewerRecord, OSError) as error:
        raise SourceError(f"the record {directory}: {error}") from error
