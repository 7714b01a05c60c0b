"""The formats, by name. A new one is a class and a line here."""

from __future__ import annotations

from collections.abc import Sequence

from proxy.protocol.formats.base import Format, render, template
from proxy.protocol.formats.cep import Cep
from proxy.protocol.formats.hermes import Hermes
from proxy.protocol.formats.llama3 import Llama3
from proxy.protocol.formats.structured import Structured
from proxy.protocol.openai import Function, Message

FORMATS: dict[str, Format] = {
    f.name: f
    for f in (
        Structured(),
        Structured(echo=True),
        Structured(family="llama3"),
        Structured(echo=True, family="llama3"),
        Hermes(),
        Llama3(),
        Cep(),
    )
}


def prompt(
    format: Format, source: str, messages: Sequence[Message], functions: Sequence[Function]
) -> str:
    """The prompt of a conversation, as it is trained on and as it is served.

    `source` is the template that shows tools; without tools it is the format's chat template.
    """
    return render(source if functions else template(format.chat), messages, functions)
