"""Train/serve parity: a request must become the ids that the adapter was trained on.

An adapter that is served with another template answers as if it had learnt nothing, and says so
nowhere: figures of 0 % have come of it. So a bundle holds some requests with the ids they had in
training, and whoever is about to use it renders them again.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence

import msgspec

from proxy.protocol.openai import Function, Message

PARITY = "parity.json"
"""The file in a bundle."""

Render = Callable[["Sample"], list[int]]
"""The ids that a server would send its engine for a sample's request."""


class Sample(msgspec.Struct, frozen=True):
    """A request, and what it was trained as."""

    format: str
    messages: list[Message]
    functions: list[Function]
    ids: list[int]


class ParityError(ValueError):
    """The server would send other ids than the adapter was trained on."""


def rendering(templates: Mapping[str, str], encode: Callable[[str], list[int]]) -> Render:
    """Our own rendering, with these templates (format → source) and this tokenizer."""
    # Here, as it takes Jinja: most of those who read a bundle render nothing.
    from proxy.protocol.formats import FORMATS, prompt
    from proxy.protocol.formats.base import Unrenderable

    def render(sample: Sample) -> list[int]:
        if sample.format not in FORMATS or sample.format not in templates:
            raise ParityError(f"{PARITY} names the format {sample.format!r}; the bundle has it not")
        format = FORMATS[sample.format]
        source = templates[format.name]
        try:
            return encode(prompt(format, source, sample.messages, sample.functions))
        except Unrenderable as error:
            raise ParityError(f"{error}; the bundle's template is broken or hostile") from error

    return render


def prove(samples: Sequence[Sample], render: Render) -> None:
    """Raise ParityError with the first place at which a sample differs."""
    for number, sample in enumerate(samples):
        ids = render(sample)
        if ids != sample.ids:
            place = next(
                (i for i, (a, b) in enumerate(zip(ids, sample.ids, strict=False)) if a != b),
                min(len(ids), len(sample.ids)),
            )
            raise ParityError(
                f"request {number} of {PARITY} becomes {len(ids)} ids and was trained as"
                f" {len(sample.ids)}; they differ from id {place} on. Serve the adapter with the"
                " template and the tokenizer that it was trained with"
            )
