"""The hundred questions about Python, asked, judged by execution, and compared by category."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable, Sequence
from pathlib import Path

import msgspec
from openai import APIError, AsyncOpenAI

from proxy.protocol.evidence.clusters import sign_flip
from proxy.protocol.evidence.intervals import Interval
from proxy.protocol.evidence.paired import difference
from trainer.benchmarks import SHA256, Question
from trainer.errors import TrainerError, cause_of
from trainer.figures import Figure
from trainer.scorers.docs import MARKS, Marks, Runs, mark
from trainer.subject import Subject

MOST_TOKENS = 400
"""Of an answer; the longest reference has some 250."""


UNMARKED = Marks(
    has_code=False,
    syntax=False,
    imports=False,
    runs=False,
    correct=False,
    current=False,
    complete=False,
)


class DocsAnswer(msgspec.Struct, frozen=True, kw_only=True):
    """One answer and its marks."""

    id: str
    category: str
    text: str
    """Empty: an error came instead."""
    marks: Marks
    model: str = ""
    at: float = 0.0
    """Seconds since the epoch."""
    seconds: float = 0.0


class DocsReport(msgspec.Struct, frozen=True, kw_only=True):
    """One subject's answers to the benchmark."""

    subject: Subject
    benchmark: str
    """Hash of the questions."""
    answers: list[DocsAnswer]

    @property
    def unanswered(self) -> int:
        """Questions that got an error, such as a time limit; they count as wrong."""
        return sum(not answer.text for answer in self.answers)

    def figures(self, category: str = "") -> dict[str, Figure]:
        """Share of each mark, and of `good`; of one category, or of all."""
        chosen = [a.marks for a in self.answers if category in ("", a.category)]
        return {
            name: Figure.of(sum(getattr(one, name) for one in chosen), len(chosen))
            for name in (*MARKS, "good")
        }


class Compared(msgspec.Struct, frozen=True):
    """One mark of two subjects, over the same questions."""

    first: Figure
    second: Figure
    gain: float
    """The first's share less the second's."""
    interval: Interval
    p: float
    """Exact, two-sided."""


async def ask(
    questions: Sequence[Question],
    place: Runs,
    *,
    base_url: str,
    subject: Subject,
    key: str = "none",
    concurrency: int = 2,
    progress: Callable[[], None] = lambda: None,
) -> DocsReport:
    """Ask and judge all questions; raises TrainerError when not one is answered."""
    url = subject.url or base_url
    gate = asyncio.Semaphore(concurrency)
    client = AsyncOpenAI(base_url=url, api_key=key, max_retries=0, timeout=1200)

    async def one(question: Question) -> DocsAnswer:
        async with gate:
            answer = await _answer(client, question, subject)
            progress()
            return answer

    async with client:
        answers = await asyncio.gather(*map(one, questions))
    if not any(answer.text for answer in answers):
        raise TrainerError(f"{url} answered none of {len(answers)} questions; is it running?")
    # One after the other: the sandbox is one process, and is asked from one thread.
    judged = [
        msgspec.structs.replace(answer, marks=mark(question, answer.text, place))
        for question, answer in zip(questions, answers, strict=True)
    ]
    return DocsReport(subject=subject, benchmark=SHA256, answers=judged)


async def _answer(client: AsyncOpenAI, question: Question, subject: Subject) -> DocsAnswer:
    began = time.monotonic()
    prompt = [{"role": "system", "content": subject.prompt}] if subject.prompt else []
    try:
        completion = await client.chat.completions.create(
            model=subject.model,
            messages=[*prompt, {"role": "user", "content": question.question}],  # type: ignore[list-item]
            temperature=0,
            max_tokens=MOST_TOKENS,
            extra_headers=subject.headers,
        )
        text, model = completion.choices[0].message.content or "", completion.model
    except (APIError, IndexError):
        text, model = "", ""
    return DocsAnswer(
        id=question.id,
        category=question.category,
        text=text,
        marks=UNMARKED,
        model=model,
        at=time.time(),
        seconds=time.monotonic() - began,
    )


def compare(first: DocsReport, second: DocsReport, name: str, category: str = "") -> Compared:
    """One mark of two reports, question by question."""
    theirs = {answer.id: bool(getattr(answer.marks, name)) for answer in second.answers}
    chosen = [a for a in first.answers if category in ("", a.category) and a.id in theirs]
    gains = [int(getattr(a.marks, name)) - int(theirs[a.id]) for a in chosen]
    return Compared(
        first.figures(category)[name],
        second.figures(category)[name],
        sum(gains) / len(gains) if gains else 0.0,
        difference(gains.count(1), gains.count(-1), len(gains)),
        sign_flip(gains),
    )


def write(report: DocsReport, path: Path) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(msgspec.json.format(msgspec.json.encode(report)))


def read(path: Path) -> DocsReport:
    """A report that was written; raises TrainerError for what is none, or of other questions."""
    try:
        report = msgspec.json.decode(path.read_bytes(), type=DocsReport)
    except (OSError, msgspec.MsgspecError, UnicodeDecodeError) as error:
        raise TrainerError(
            f"{path}: {cause_of(error)}; `headrace-trainer evaluate --benchmark` writes reports"
        ) from error
    if report.benchmark != SHA256:
        raise TrainerError(f"{path} is of another version of the questions; ask them again")
    return report
