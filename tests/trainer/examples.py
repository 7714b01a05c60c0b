"""Rows that the trainer's tests are made of."""

from __future__ import annotations

import random

import msgspec

from proxy.protocol.openai import Function, FunctionCall, Message
from trainer.rows import Row

NONE_FITS = "None of the available tools can do that."
TOOLS = (
    *("weather", "hotel", "flight", "music", "recipe", "stock", "taxi", "film", "library", "bank"),
    *("garden", "doctor", "translate", "calendar", "parcel", "lottery", "museum", "ferry", "gym"),
    *("horoscope", "currency", "traffic", "vaccine", "podcast", "laundry", "tides", "sudoku"),
    *("genealogy", "beekeeping", "telescope"),
)
"""Thirty names that share no word, so that any of them is unrelated to any other."""


def function(name: str = "weather", **properties: str) -> Function:
    """A function with these parameters, name → JSON type; all are required."""
    schema = {
        "type": "object",
        "properties": {key: {"type": kind} for key, kind in properties.items()},
        "required": list(properties),
    }
    return Function(name, f"Does {name}.", msgspec.Raw(msgspec.json.encode(schema)))


WEATHER = function("weather", city="string")


def row(
    *calls: FunctionCall,
    question: str = "Rain in Oslo?",
    functions: tuple[Function, ...] = (WEATHER,),
    text: str = "",
    accepted: dict[str, list[object]] | None = None,
    source: str = "test",
) -> Row:
    """A row in which the user asks one question; without calls, nothing fits."""
    return Row(
        messages=[Message(role="user", content=question)],
        functions=list(functions),
        calls=list(calls),
        text=text or ("" if calls else NONE_FITS),
        accepted=[raw(accepted)] if accepted is not None else [],
        source=source,
        license="Apache-2.0",
        group=question.lower(),
    )


def raw(accepted: dict[str, list[object]]) -> dict[str, msgspec.Raw]:
    return {name: msgspec.Raw(msgspec.json.encode(values)) for name, values in accepted.items()}


def weather(city: str = "Oslo") -> FunctionCall:
    return FunctionCall("weather", f'{{"city": "{city}"}}')


def corpus(seed: int, size: int = 140) -> list[Row]:
    """Rows that ask some 70 questions about 30 tools; with a quarter of them nothing fits."""
    chance = random.Random(seed)
    return [_any_row(chance, number) for number in range(size)]


def _any_row(chance: random.Random, number: int) -> Row:
    offered = chance.sample(TOOLS, chance.randint(1, 4))
    called = [FunctionCall(offered[0], '{"city": "Oslo"}')] if chance.random() < 0.75 else []
    chance.shuffle(offered)
    return row(
        *called,
        question=f"Question {chance.randrange(70)}?",
        functions=tuple(function(name, city="string") for name in offered),
        source=f"test:{number}",
    )
