"""The proof for people: tables in a terminal, and a page of Markdown; the same in JSON."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

from rich.console import Console
from rich.table import Table

from proxy.protocol.page.words import told
from scripts.proof.figures import Proof, Verdict
from scripts.proof.form import Form

Rows = list[tuple[str, ...]]


def show(proof: Proof, console: Console) -> None:
    """Everything, in the terminal."""
    for title, rows in _tables(proof):
        table = Table(*rows[0], title=title, title_justify="left")
        for row in rows[1:]:
            table.add_row(*row)
        console.print(table)
    console.print(_closing(proof), highlight=False)


def markdown(proof: Proof, form: Form) -> str:
    """The page of docs/results."""
    tables = "\n\n".join(f"## {title}\n\n{_table(rows)}" for title, rows in _tables(proof))
    versions = ", ".join(f"{name} {version}" for name, version in proof.versions.items())
    return f"""# The proof: traffic in, better adapters out

`make proof`, {proof.at}; {proof.machine}; {versions}. Shares with 95 % Wilson intervals.

Two domains of made-up tool traffic, *tickets* and *hotels*: four tools each, three on offer in a
request, with enums and optional arguments; a quarter of the conversations fit no tool, some take
two turns. Every name, number and text is drawn once, so that none that is asked about was trained
on. An openai client asks the proxy and nobody else; the cloud is a scripted server that answers
from references, so that it is right by construction, and its time to answer means nothing. All
else is what is shipped: `headrace serve` with the embedded engine, one process from beginning to
end, and `headrace-trainer run`. The gate lets an adapter be at most {100 * form.margin:g} points
worse than the cloud, with 95 % certainty, and call where nothing fits in at most
{100 * form.false_calls:g} %.

{tables}

{_closing(proof)}

Tokens of the cloud's bill are counted as four letters each, at gpt-4o's price; every request that
an adapter answers is mirrored to the cloud here (5 to 10 % are usual), which is left out of the
bill. Two narrow domains say nothing about wide ones.
"""


def _tables(proof: Proof) -> Iterator[tuple[str, Rows]]:
    yield "What the client saw", list(_phases(proof))
    yield "What the gate measured, on held-out rows", list(_measured(proof))
    yield "What became of the candidates", list(_verdicts([*proof.verdicts, proof.damaged]))


def _phases(proof: Proof) -> Iterator[tuple[str, ...]]:
    yield (
        *("domain", "when", "requests", "errors", "served locally", "agreed with the cloud"),
        *("false calls", "fell back", "p50", "p95", "cloud, 1,000 requests"),
    )
    for one in proof.phases:
        yield (
            *(one.domain, one.name, str(one.requests), str(one.errors)),
            *map(str.strip, map(str, (one.local, one.agreed, one.false_calls, one.fell_back))),
            *(told(one.times.p50, "seconds"), told(one.times.p95, "seconds")),
            told(one.cloud_usd, "dollars"),
        )


def _measured(proof: Proof) -> Iterator[tuple[str, ...]]:
    yield ("domain", "subject", "call exact", "false calls", "valid answers")
    for one in proof.measured:
        figures = (one.call_exact, one.false_calls, one.valid)
        yield (one.domain, one.subject, *map(str.strip, map(str, figures)))


def _verdicts(verdicts: Sequence[Verdict]) -> Iterator[tuple[str, ...]]:
    yield ("domain", "adapter", "outcome", "rows", "took", "why")
    for one in verdicts:
        took = f"{one.seconds / 60:.1f} min"
        yield (one.domain, one.adapter, one.outcome, str(one.rows), took, one.reason)


def _closing(proof: Proof) -> str:
    times = ", ".join(f"{name} {seconds:.0f} s" for name, seconds in proof.seconds.items())
    asked = sum(phase.requests for phase in proof.phases)
    return (
        f"{asked} requests of clients, {proof.errors} errors; the cloud answered"
        f" {proof.cloud_answers} times. {sum(proof.seconds.values()) / 60:.1f} minutes: {times}."
    )


def _table(rows: Rows) -> str:
    head, *body = rows
    lines = [head, tuple("---" for _ in head), *body]
    return "\n".join(f"| {' | '.join(line)} |" for line in lines)
