"""What training must not spoil: general knowledge, plain chat, and silence about planted data.

A probe is a question without tools. A right answer calls nothing, has one of `any_of`, and none of
`none_of`: for a canary that is what was planted in the training rows and must never come out.
"""

from __future__ import annotations

from collections.abc import Callable
from importlib import resources
from pathlib import Path

import msgspec
import yaml

from proxy.protocol.openai import Message
from trainer.errors import DatasetError, cause_of
from trainer.evaluate import Asker, Report, evaluate, recounted
from trainer.figures import Answered
from trainer.rows import Row
from trainer.subject import Subject

GENERAL = "general"
"""The probes that ship."""


class Probe(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """A question, and what is right and wrong in its answer; letters' case says nothing."""

    id: str
    question: str
    any_of: list[str] = []
    none_of: list[str] = []

    def is_right(self, answer: Answered) -> bool:
        """An error in place of an answer is wrong."""
        text = answer.text.casefold()
        return (
            answer.score.fault != "no_answer"
            and not answer.calls
            and (not self.any_of or any(one.casefold() in text for one in self.any_of))
            and not any(one.casefold() in text for one in self.none_of)
        )


def read(name: str) -> list[Probe]:
    """The probes in a YAML or JSON file, or those that ship; raises DatasetError."""
    try:
        if name == GENERAL:
            text = resources.files("trainer.benchmarks").joinpath("general.yaml").read_text()
        else:
            text = Path(name).read_text()
        return msgspec.convert(yaml.safe_load(text), list[Probe])
    except (OSError, UnicodeDecodeError, yaml.YAMLError, msgspec.ValidationError) as error:
        raise DatasetError(
            f"{name}: {cause_of(error)}; a probe has an id, a question, any_of"
        ) from error


async def ask(
    probes: list[Probe],
    *,
    asker: Asker,
    subject: Subject,
    progress: Callable[[], None] = lambda: None,
) -> Report:
    """A report in which `call exact` of each answer says whether it is right."""
    rows = {_row(probe).id: (probe, _row(probe)) for probe in probes}
    asked = await evaluate(
        [row for _, row in rows.values()],
        asker=asker,
        subject=subject,
        side="probes",
        progress=progress,
    )
    judged = [_judged(answer, rows[answer.row][0]) for answer in asked.answers]
    return recounted(asked, judged)


def _row(probe: Probe) -> Row:
    return Row(
        messages=[Message(role="user", content=probe.question)],
        functions=[],
        text="?",
        source=f"probe:{probe.id}",
        license="Apache-2.0",
        group=probe.id,
    )


def _judged(answer: Answered, probe: Probe) -> Answered:
    right = probe.is_right(answer)
    score = msgspec.structs.replace(
        answer.score, call_exact=right, call_match=right, fault="" if right else "wrong_text"
    )
    return msgspec.structs.replace(answer, score=score)
