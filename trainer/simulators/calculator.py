"""A calculator with one memory."""

from __future__ import annotations

from typing import ClassVar

from trainer.simulators.base import Json, Tool, ToolError, tool

_LARGEST = 1e15


class Calculator:
    """Works with numbers up to a thousand million million."""

    name: ClassVar[str] = "calculator"

    def __init__(self) -> None:
        self.memory = 0.0

    def tools(self) -> dict[str, Tool]:
        made = (
            tool(self.add, "a plus b.", a="number", b="number"),
            tool(self.subtract, "a minus b.", a="number", b="number"),
            tool(self.multiply, "a times b.", a="number", b="number"),
            tool(self.divide, "a divided by b.", a="number", b="number"),
            tool(self.store, "Keep a number in the memory.", value="number"),
            tool(self.recall, "The number in the memory."),
        )
        return {one.function.name: one for one in made}

    def state(self) -> Json:
        return {"memory": self.memory}

    def add(self, a: float, b: float) -> Json:
        return _bounded(a + b)

    def subtract(self, a: float, b: float) -> Json:
        return _bounded(a - b)

    def multiply(self, a: float, b: float) -> Json:
        return _bounded(a * b)

    def divide(self, a: float, b: float) -> Json:
        if b == 0:
            raise ToolError("nothing can be divided by zero")
        return _bounded(a / b)

    def store(self, value: float) -> Json:
        self.memory = _bounded(value)
        return "stored"

    def recall(self) -> Json:
        return self.memory


def _bounded(value: float) -> float:
    if not abs(value) <= _LARGEST:
        raise ToolError("the number is too large")
    return value
