"""Schema drift: tools and parameters that were renamed get today's names, by explicit rules.

Old traffic calls `get_wx(town=…)` where today's schema says `get_weather(city=…)`: trained on as
it is, it teaches a tool that is no more. A rule may be for one version of a tool only, which its
fingerprint names. Nothing is guessed.
"""

from __future__ import annotations

from typing import Any, ClassVar

import msgspec

from proxy.protocol.fingerprints import fingerprint
from proxy.protocol.openai import Function, FunctionCall, MalformedRequest, Message, PastCall
from trainer.curate.filter import Drop
from trainer.recipe import Recipe
from trainer.recipe.curation import DriftSettings, Rename
from trainer.rows import Row


class Drift:
    """Renames in schemas, in the calls to learn, and in those of the conversation so far."""

    version: ClassVar[int] = 1

    def __init__(self, settings: DriftSettings, recipe: Recipe) -> None:
        self._rules = settings.rules

    def __call__(self, row: Row) -> Row | Drop:
        rules = {f.name: rule for f in row.functions if (rule := self._rule(f)) is not None}
        if not rules:
            return row
        functions = [_function(f, rules.get(f.name)) for f in row.functions]
        names = [function.name for function in functions]
        if len(set(names)) != len(names):
            return Drop("drift_makes_a_tool_twice", max(names, key=names.count))
        return msgspec.structs.replace(
            row,
            functions=functions,
            calls=[_call(call, rules.get(call.name)) for call in row.calls],
            accepted=_accepted(row, rules),
            messages=[_message(message, rules) for message in row.messages],
        )

    def _rule(self, function: Function) -> Rename | None:
        return next(
            (r for r in self._rules if r.tool == function.name and _is_for(r, function)), None
        )


def _is_for(rule: Rename, function: Function) -> bool:
    if not rule.fingerprints:
        return True
    try:
        known = fingerprint(function)
    except MalformedRequest:
        return False
    return known.startswith(rule.fingerprints)


def _renamed(given: dict[str, Any], rule: Rename) -> dict[str, Any]:
    return {rule.parameters.get(name, name): value for name, value in given.items()}


def _function(function: Function, rule: Rename | None) -> Function:
    if rule is None:
        return function
    schema = msgspec.json.decode(function.schema)
    if isinstance(schema.get("properties"), dict):
        schema["properties"] = _renamed(schema["properties"], rule)
    if isinstance(schema.get("required"), list):
        schema["required"] = [rule.parameters.get(n, n) for n in schema["required"]]
    encoded = msgspec.Raw(msgspec.json.encode(schema))
    return msgspec.structs.replace(function, name=rule.to or function.name, parameters=encoded)


def _call(call: FunctionCall, rule: Rename | None) -> FunctionCall:
    if rule is None:
        return call
    return FunctionCall(rule.to or call.name, _arguments(call.arguments, rule))


def _arguments(text: str, rule: Rename) -> str:
    """Arguments that are no JSON object stay as they are: the schema filter names them."""
    try:
        given = msgspec.json.decode(text, type=dict[str, msgspec.Raw])
    except (ValueError, RecursionError):
        return text
    if not given.keys() & rule.parameters.keys():
        return text
    return msgspec.json.encode(_renamed(given, rule)).decode()


def _accepted(row: Row, rules: dict[str, Rename]) -> list[dict[str, msgspec.Raw]]:
    pairs = zip(row.calls, row.accepted, strict=False)
    return [_renamed(one, rules[c.name]) if c.name in rules else one for c, one in pairs]


def _message(message: Message, rules: dict[str, Rename]) -> Message:
    if message.role == "tool" and message.name in rules:
        return msgspec.structs.replace(message, name=rules[message.name].to or message.name)
    if not message.tool_calls:
        return message
    calls = [_past(call, rules) for call in message.tool_calls]
    return msgspec.structs.replace(message, tool_calls=calls)


def _past(call: PastCall, rules: dict[str, Rename]) -> PastCall:
    if call.function is None:
        return call
    return msgspec.structs.replace(
        call, function=_call(call.function, rules.get(call.function.name))
    )
