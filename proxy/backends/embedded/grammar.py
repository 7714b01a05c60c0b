"""What an answer may look like, in the terms of OpenVINO GenAI (its grammar engine is xgrammar).

Two steps, since they run in two processes: `plan` is pure and tells what had to be loosened;
`configuration` builds the engine's objects where the engine is. A grammar that the engine refuses
would break all requests in flight (the refusal surfaces in `step`, and the scheduler does not
recover), so `plan` only writes grammars of rules that it made itself.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import msgspec

from proxy.backends.embedded import ebnf
from proxy.protocol.formats.constraint import Calls, CallShape, Constraint, JsonObject

if TYPE_CHECKING:
    from openvino_genai import StructuredOutputConfig

SEPARATOR = "\n"
"""Between calls when nothing else may stand there."""


class Grammar(msgspec.Struct, frozen=True, kw_only=True):
    """A constraint, ready for the engine."""

    bodies: tuple[str, ...]
    """Grammars in EBNF, one for each tool: what follows the trigger, to the call's end."""
    trigger: str = ""
    """Text after which a body must follow; empty: the only body is the whole answer."""
    required: bool = True
    many: bool = False
    loosened: tuple[str, ...] = ()
    """What the schemas demand and the grammar does not, each after the text that begins a call."""


class UnusableConstraint(ValueError):
    """The constraint contradicts itself."""


def plan(constraint: Constraint) -> Grammar | None:
    """The grammar of a constraint; None when it allows every text."""
    match constraint:
        case JsonObject(schema=schema):
            json = ebnf.from_schema(bytes(schema))
            return Grammar(bodies=(f"root ::= json\n{json.text}",), loosened=json.loosened)
        case Calls(shapes=(), required=False):
            return None
        case Calls():
            _check(constraint)
            return _of_calls(constraint)


def _check(calls: Calls) -> None:
    if not calls.shapes:
        raise UnusableConstraint("a call is required, but no tool is offered")
    # Of an empty trigger the engine makes nothing; of letters that are not ASCII, other letters.
    if not calls.trigger or not calls.trigger.isascii() or not calls.trigger.isprintable():
        raise UnusableConstraint(f"{calls.trigger!r} cannot be a trigger")
    for shape in calls.shapes:
        if not shape.begin.startswith(calls.trigger):
            raise UnusableConstraint(f"{shape.begin!r} does not begin with {calls.trigger!r}")


def _of_calls(calls: Calls) -> Grammar:
    arguments = [ebnf.from_schema(bytes(shape.schema)) for shape in calls.shapes]
    pairs = list(zip(calls.shapes, arguments, strict=True))
    return Grammar(
        bodies=tuple(_body(calls.trigger, shape, json) for shape, json in pairs),
        trigger=calls.trigger,
        required=calls.required,
        many=calls.many,
        loosened=tuple(f"{shape.begin}{path}" for shape, json in pairs for path in json.loosened),
    )


def _body(trigger: str, shape: CallShape, json: ebnf.Body) -> str:
    # All but the trigger is written here and not left to the engine, which garbles some letters.
    begin = shape.begin.removeprefix(trigger)
    return f"root ::= {ebnf.quoted(begin)} json {ebnf.quoted(shape.end)}\n{json.text}"


def configuration(grammar: Grammar) -> StructuredOutputConfig:
    """The engine's form of the grammar. Imports openvino_genai."""
    from openvino_genai import StructuredOutputConfig as Config

    if not grammar.trigger:
        return Config(grammar=grammar.bodies[0])
    tags = [Config.Tag(grammar.trigger, Config.EBNF(body), "") for body in grammar.bodies]
    if grammar.required and grammar.many:
        calls = Config.TagsWithSeparator(
            tags=tags, separator=SEPARATOR, at_least_one=True, stop_after_first=False
        )
    else:
        calls = Config.TriggeredTags(
            triggers=[grammar.trigger],
            tags=tags,
            at_least_one=grammar.required,
            stop_after_first=not grammar.many,
        )
    return Config(structural_tags_config=calls)
