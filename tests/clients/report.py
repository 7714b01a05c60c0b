"""What the clients saw, as tables: for the terminal, and for docs/compatibility.md."""

from __future__ import annotations

import platform
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, NamedTuple

FEATURES = {
    "plain": "plain",
    "stream": "stream",
    "tools": "tools",
    "parallel_tools": "parallel tools",
    "streamed_tools": "streamed tools",
    "json_schema": "json_schema",
    "usage": "usage in stream",
    "retry": "retry on 429",
    "cancel": "cancel",
    "stream_error": "error in stream",
}
STATUSES = (
    "400",
    "401",
    "403",
    "404",
    "409",
    "413",
    "415",
    "422",
    "429",
    "500",
    "502",
    "503",
    "504",
)


class Client(NamedTuple):
    """A program, and what runs it."""

    id: str
    title: str
    runtime: str
    program: str

    def command(self, root: Path, here: Path) -> list[str]:
        """How to start it."""
        folder = "node" if self.runtime == "node" else "python"
        runtime = self.runtime if self.runtime == "node" else str(root / self.runtime)
        return [runtime, str(here / folder / self.program)]


class Seen(NamedTuple):
    """One line of a program."""

    feature: str
    side: str | None
    """Which backend answered; None for what the library does not have."""
    ok: bool | None
    detail: str


@dataclass(frozen=True)
class Outcome:
    """What one client saw."""

    client: Client
    versions: Mapping[str, str]
    seen: Sequence[Seen]
    complaint: str
    """Why its program broke down; empty when it did not."""

    @classmethod
    def of(cls, client: Client, lines: Sequence[dict[str, Any]], complaint: str) -> Outcome:
        versions = next((line["versions"] for line in lines if "versions" in line), {})
        seen = [Seen(**line) for line in lines if "feature" in line]
        return cls(client, versions, seen, complaint)

    @property
    def ok(self) -> bool:
        """Everything was tried, and nothing failed."""
        return not self.complaint and not self.failures and not self.untried

    @property
    def failures(self) -> list[Seen]:
        return [line for line in self.seen if line.ok is False]

    @property
    def untried(self) -> set[str]:
        """Features and statuses of which the program says nothing."""
        tried = {line.feature for line in self.seen}
        statuses = set() if "errors" in tried else set(STATUSES)
        return ({*FEATURES} | statuses) - tried

    def cell(self, feature: str) -> str:
        """A tick for each side that answered, `–` for what the library does not have."""
        lines = [line for line in self.seen if line.feature == feature]
        if feature in STATUSES and not lines:
            lines = [line for line in self.seen if line.feature == "errors"]
        signs = {True: "✓", False: "✗", None: "–"}
        return " ".join(signs[line.ok] for line in lines) or "?"


def progress(outcome: Outcome) -> str:
    """One line while the matrix runs, more where something failed."""
    passed = sum(line.ok is True for line in outcome.seen)
    head = f"{outcome.client.title}: {passed} passed, {len(outcome.failures)} failed"
    failures = [f"    {line.feature} ({line.side}): {line.detail}" for line in outcome.failures]
    untried = [f"    not tried: {', '.join(sorted(outcome.untried))}"] if outcome.untried else []
    complaint = [f"    {line}" for line in outcome.complaint.splitlines()[-12:]]
    return "\n".join([head, *failures, *untried, *complaint])


def terminal(outcomes: Sequence[Outcome]) -> str:
    """Both tables in columns, and the reasons for each `–`."""
    parts = [*_aligned(_features(outcomes)), "", *_aligned(_statuses(outcomes)), ""]
    parts += [f"– {client}, {what}: {why}" for client, what, why in _reasons(outcomes)]
    passed = sum(line.ok is True for outcome in outcomes for line in outcome.seen)
    failed = sum(len(outcome.failures) + len(outcome.untried) for outcome in outcomes)
    return "\n".join([*parts, f"{passed} passed, {failed} failed"])


def page(outcomes: Sequence[Outcome], node: str) -> str:
    """docs/compatibility.md; `node` is Node's version."""
    parts = [
        _INTRODUCTION.format(
            date=datetime.now(UTC).date(),
            python=platform.python_version(),
            node=node,
            system=platform.system(),
        ),
        "## Features\n",
        _ABOUT_FEATURES,
        *_markdown(_features(outcomes)),
        "\n## Errors\n",
        _ABOUT_ERRORS,
        *_markdown(_statuses(outcomes)),
        "\nWhat is raised:\n",
        *(f"- {line}" for line in _exceptions(outcomes)),
        *_missing(outcomes),
        "\n## Versions\n",
        *_markdown(_versions(outcomes)),
    ]
    return "\n".join(parts) + "\n"


_INTRODUCTION = """# Clients that work with Headrace

Written by `make test-clients`, which runs each client's own program (`tests/clients/`) against
Headrace on a real socket. {date}, Python {python}, Node {node}, {system}.

Where a client is pointed, with a key of `auth.keys`, or any where there are none:

- OpenAI and what builds on it: `base_url` (`baseURL`, `api_base`) is `http://HOST:8080/v1`.
- Azure: `azure_endpoint` (`endpoint`) is `http://HOST:8080`, the deployment is the model's name,
  any `api_version`; or OpenAI's client with `base_url` `http://HOST:8080/openai/v1/`.
- litellm: `model="openai/NAME"`, `api_base` as above; LlamaIndex: `OpenAILike`; Vercel's AI SDK:
  `createOpenAICompatible`, or `createAzure` with `baseURL` `http://HOST:8080/openai`.
"""
_ABOUT_FEATURES = """\
A tick for each of the backends that answered, in this order: a cloud with OpenAI's bytes, a cloud
with Azure's bytes (both relayed), a local engine (its answer is written by Headrace). Retry: a
cloud's 429, then Headrace's own; the client waited as long as the header said. Cancel: the backend
noticed that it was left. Error in stream: the backend broke down after the first words, and the
client raised what Headrace said of it.
"""
_ABOUT_ERRORS = """\
A tick where the client raised the exception that is named below, with the status and with
Headrace's or the cloud's message in it. Some statuses are Headrace's own (401, 403, 404, 413, 415,
500, 502, 503, 504), the others were a cloud's.
"""


def _missing(outcomes: Sequence[Outcome]) -> Iterator[str]:
    reasons = [f"- {client}, {what}: {why}." for client, what, why in _reasons(outcomes)]
    if reasons:
        yield from ("\n## What a client does not have\n", *reasons)


def _features(outcomes: Sequence[Outcome]) -> Iterator[Sequence[str]]:
    yield ("client", *FEATURES.values())
    for outcome in outcomes:
        yield (outcome.client.title, *map(outcome.cell, FEATURES))


def _statuses(outcomes: Sequence[Outcome]) -> Iterator[Sequence[str]]:
    yield ("client", *STATUSES)
    for outcome in outcomes:
        yield (outcome.client.title, *map(outcome.cell, STATUSES))


def _versions(outcomes: Sequence[Outcome]) -> Iterator[Sequence[str]]:
    yield ("client", "versions")
    for outcome in outcomes:
        told = ", ".join(f"{name} {version}" for name, version in outcome.versions.items())
        yield (outcome.client.title, told)


def _exceptions(outcomes: Sequence[Outcome]) -> Iterator[str]:
    """Which exceptions the clients raise; clients that raise the same share a line."""
    shared: dict[str, list[str]] = {}
    for outcome in outcomes:
        raised = [f"{s.feature} `{s.detail}`" for s in outcome.seen if s.feature in STATUSES]
        shared.setdefault(", ".join(raised), []).append(outcome.client.title)
    for raised, clients in shared.items():
        if raised:
            yield f"{'; '.join(clients)}: {raised}"


def _reasons(outcomes: Sequence[Outcome]) -> Iterator[tuple[str, str, str]]:
    for outcome in outcomes:
        for line in outcome.seen:
            if line.ok is None:
                name = FEATURES.get(line.feature, line.feature)
                yield outcome.client.title, name, line.detail


def _aligned(rows: Iterator[Sequence[str]]) -> Iterator[str]:
    table = list(rows)
    widths = [max(map(len, column)) for column in zip(*table, strict=True)]
    for row in table:
        cells = (cell.ljust(width) for cell, width in zip(row, widths, strict=True))
        yield "  ".join(cells).rstrip()


def _markdown(rows: Iterator[Sequence[str]]) -> Iterator[str]:
    head, *others = rows
    yield _row(head)
    yield _row(["---"] * len(head))
    yield from map(_row, others)


def _row(cells: Sequence[str]) -> str:
    return f"| {' | '.join(cells)} |"
