"""A simulated service: tools that change a state which a test can compare."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, ClassVar, Protocol, TypeAlias

import jsonschema_rs
import msgspec

from proxy.protocol.openai import Function

Json: TypeAlias = Any


class ToolError(Exception):
    """What the service says to a call that it cannot do; the model is told."""


class Simulator(Protocol):
    """One service, in memory. The same calls lead to the same state."""

    name: ClassVar[str]

    def tools(self) -> dict[str, Tool]: ...

    def state(self) -> Json:
        """All that a call can change, comparable."""


class Tool(msgspec.Struct, frozen=True):
    """A function that is on offer, and what it does."""

    function: Function
    does: Callable[..., Json]


def tool(does: Callable[..., Json], description: str, **arguments: str) -> Tool:
    """A tool named as the method that does it; arguments are name → JSON type, all required."""
    schema = {
        "type": "object",
        "properties": {name: {"type": kind} for name, kind in arguments.items()},
        "required": list(arguments),
        "additionalProperties": False,
    }
    parameters = msgspec.Raw(msgspec.json.encode(schema))
    return Tool(Function(does.__name__, description, parameters), does)


def call(simulator: Simulator, name: str, arguments: str) -> str:
    """What the service answers, in JSON; raises ToolError, without a change, where it cannot."""
    found = simulator.tools().get(name)
    if found is None:
        raise ToolError(f"there is no tool {name}")
    try:
        given = msgspec.json.decode(arguments or "{}")
    except (msgspec.DecodeError, RecursionError):
        raise ToolError("the arguments are no JSON") from None
    if not jsonschema_rs.is_valid(msgspec.json.decode(found.function.schema), given):
        raise ToolError("the arguments do not satisfy the schema")
    return msgspec.json.encode(found.does(**given)).decode()
