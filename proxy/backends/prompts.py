"""A request as a local model gets it: prompt text, the format of its calls, what may be answered.

One code path for all local engines, and with `proxy.protocol.formats` the trainer's own.
"""

from __future__ import annotations

from dataclasses import dataclass

import msgspec

from proxy.backends.base import Ask
from proxy.errors import BackendUnavailable
from proxy.protocol.formats import FORMATS, prompt
from proxy.protocol.formats.base import Format, Unrenderable, template
from proxy.protocol.formats.constraint import Constraint, JsonObject
from proxy.protocol.openai import ChatRequest, Function, NamedChoice

_ANY_OBJECT = msgspec.Raw(b'{"type": "object"}')


@dataclass(frozen=True, slots=True)
class Rendered:
    """A request, rendered."""

    text: str
    format: Format | None
    """How to read the answer's calls; None: it has none."""
    constraint: Constraint | None


def rendered(ask: Ask, plain: str) -> Rendered:
    """The prompt of a request.

    `plain` names the format in which the base model is offered tools where no adapter answers; its
    family's chat template serves requests without tools. Raises BackendUnavailable where the
    adapter's template cannot show the request.
    """
    request = ask.request
    functions = [] if request.tool_choice == "none" else request.offered
    format = FORMATS[ask.adapter.manifest.format if ask.adapter and functions else plain]
    source = ask.adapter.template if ask.adapter else template(format.template)
    try:
        text = prompt(format, source, request.messages, functions)
    except Unrenderable as error:
        # Another backend's template may do better, or a cloud has none of ours.
        raise BackendUnavailable(str(error)) from error
    if not functions:
        return Rendered(text, None, _answer_format(request))
    return Rendered(text, format, _calls(request, format) if ask.constrain else None)


def _calls(request: ChatRequest, format: Format) -> Constraint:
    choice = request.tool_choice
    offered = [f for f in request.offered if _may_be_called(f, choice)]
    many = format.many and request.parallel_tool_calls is not False
    required = choice == "required" or isinstance(choice, NamedChoice)
    return format.constraint(offered, required, many)


def _may_be_called(function: Function, choice: object) -> bool:
    named = choice.function if isinstance(choice, NamedChoice) else None
    return named is None or named.name == function.name


def _answer_format(request: ChatRequest) -> Constraint | None:
    asked = request.response_format
    if asked is None or asked.type == "text":
        return None
    return JsonObject(asked.json_schema.schema if asked.json_schema else _ANY_OBJECT)
