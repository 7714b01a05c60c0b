"""Whether a row can be learnt: what of it would be learnt otherwise than it is meant.

Curation leaves such rows out, since anybody's request may make one: a control character that the
base's tokenizer does not have, an answer that quotes the end of a turn. Preflight looks again, at
whatever rows it is given, and refuses the run.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import TypeAlias

from proxy.protocol.formats.base import CONTROL
from trainer.rows import Row
from trainer.tokens import Encoder, Example

Fault: TypeAlias = Callable[[Encoder, Row, Example], str | None]
"""What is wrong with a row, and what to do; None where nothing is."""


def fault(encoder: Encoder, row: Row, example: Example) -> str | None:
    """The first check that the row does not pass; None where it can be learnt."""
    failed = (name for name, check in FAULTS.items() if check(encoder, row, example) is not None)
    return next(failed, None)


def _prompt_decodes(encoder: Encoder, row: Row, example: Example) -> str | None:
    if _decoded(encoder, example.ids[: example.prompt]) == encoder.text(row):
        return None
    return "the prompt's ids do not decode to its text; the base's tokenizer loses text"


def _answer_decodes(encoder: Encoder, row: Row, example: Example) -> str | None:
    if _decoded(encoder, example.completion) == encoder.written(row):
        return None
    return "the labels do not decode to the answer; the tokenizer loses text"


def _answer_is_there(encoder: Encoder, row: Row, example: Example) -> str | None:
    return None if encoder.completion(row) else "there is nothing to learn; drop the row"


def _turn_ends(encoder: Encoder, row: Row, example: Example) -> str | None:
    end = encoder.end(row)
    if len(end) != 1:
        return "the format's end is no single token of the base; take a format of its family"
    if example.completion[-1:] != end or example.completion.count(end[0]) != 1:
        return "the last label is not the end of the turn, or it comes twice; drop the row"
    if any(token in encoder.completion(row) for token in CONTROL):
        return "the answer smuggles a special token, such as the end of the turn; drop the row"
    return None


def _answer_parses(encoder: Encoder, row: Row, example: Example) -> str | None:
    parsed = encoder.format(row).parse(encoder.completion(row))
    said = [call.function for call in parsed.calls]
    if said == row.calls and not parsed.broken and (row.calls or parsed.text == row.text.strip()):
        return None
    return "the format does not parse its own answer; is the format the right one?"


def _decoded(encoder: Encoder, ids: Sequence[int]) -> str:
    text: str = encoder.base.tokenizer.decode(list(ids), skip_special_tokens=False)
    return text


FAULTS: dict[str, Fault] = {
    "prompts decode to their text": _prompt_decodes,
    "labels decode to the answer": _answer_decodes,
    "every row has an answer": _answer_is_there,
    "the last label ends the turn": _turn_ends,
    "answers parse as they were meant": _answer_parses,
}
"""What is looked at, by name."""
