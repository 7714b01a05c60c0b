"""Conversations as a client has them, and what a good cloud would answer: the references.

A program writes them, from a seed. A name, a number or a text is never drawn twice in one run, so
that no adapter can have learnt the ones that it is asked about later.
"""

from __future__ import annotations

import random
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import TypeAlias

import msgspec

from proxy.protocol.openai import FunctionCall

TOLD = 0.25
"""Share of the calls whose result the client hands back for a last word; the others show it
themselves."""


NO_TOOL = "None of the tools here can do that."
OFFERED = 3
"""Tools of a request. Chosen: enough to choose from, and short to train on a processor."""


@dataclass(frozen=True)
class Tool:
    """A function on offer, in the shape of OpenAI's API."""

    name: str
    description: str
    properties: Mapping[str, Mapping[str, object]]
    optional: tuple[str, ...] = ()

    @property
    def offered(self) -> dict[str, object]:
        required = [name for name in self.properties if name not in self.optional]
        parameters = {"type": "object", "properties": self.properties, "required": required}
        function = {
            "name": self.name,
            "description": self.description,
            "parameters": parameters | {"additionalProperties": False},
        }
        return {"type": "function", "function": function}


@dataclass(frozen=True)
class Turn:
    """What a user says, and what the cloud answers."""

    said: str
    call: FunctionCall | None = None
    """None: the answer is a text."""
    text: str = ""
    """What is answered in words: at once or, after a call, when its result is there."""
    result: str = ""
    """What the called tool says, in JSON."""


Turns: TypeAlias = tuple[Turn, ...]


@dataclass(frozen=True)
class Conversation:
    """What is said, one turn after the other, with the same tools on offer."""

    turns: Turns
    tools: tuple[Tool, ...]


@dataclass
class Once:
    """Draws that never repeat, whatever the phase of the run."""

    chance: random.Random
    _drawn: set[str] = field(default_factory=set)

    def __call__(self, draw: Callable[[], str]) -> str:
        """What `draw` gives, drawn again until it is new."""
        while (drawn := draw()) in self._drawn:
            pass
        self._drawn.add(drawn)
        return drawn

    def of(self, *parts: Sequence[str], between: str = " ") -> str:
        """One of each part, as a text that is new."""
        return self(lambda: between.join(map(self.chance.choice, parts)))

    def number(self, prefix: str) -> str:
        """`TK-4821`"""
        return self(lambda: f"{prefix}-{self.chance.randrange(1_000, 10_000)}")


def call(name: str, **arguments: object) -> FunctionCall:
    """A call with the arguments that are not None."""
    given = {key: value for key, value in arguments.items() if value is not None}
    return FunctionCall(name, msgspec.json.encode(given).decode())


class Talk:
    """A domain's way of talking: each kind of conversation is a method, drawn by its weight."""

    name: str
    tools: tuple[Tool, ...]
    kinds: Mapping[str, float]
    """Method → its share of the conversations."""

    def __init__(self, chance: random.Random) -> None:
        self.chance = chance
        self.once = Once(chance)

    def conversations(self) -> Iterator[Conversation]:
        """Without end."""
        names, weights = list(self.kinds), list(self.kinds.values())
        while True:
            turns: Turns = getattr(self, self.chance.choices(names, weights)[0])()
            yield Conversation(turns, self._offered(turns))

    def _offered(self, turns: Turns) -> tuple[Tool, ...]:
        """The tools that are called and others, OFFERED together, in the domain's order."""
        called = {turn.call.name for turn in turns if turn.call is not None}
        others = [tool.name for tool in self.tools if tool.name not in called]
        wanted = called | {*self.chance.sample(others, OFFERED - len(called))}
        return tuple(tool for tool in self.tools if tool.name in wanted)

    def some(self, *phrasings: str) -> str:
        return self.chance.choice(phrasings)

    def maybe(self, share: float = 0.5) -> bool:
        return self.chance.random() < share
