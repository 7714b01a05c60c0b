"""CEP/1: work on a goal in steps, `<step>{"tool": …, "arguments": {…}}</step>`, then plain words.

Nobody has specified a "context engineering protocol" as a training format, so this one is ours
(docs/formats.md): an answer takes the next steps, several if they do not need each other, or says
in plain words that the goal is reached, that something is missing, or that no tool helps. What came
of a step stands in the prompt as `<result>`.
"""

from __future__ import annotations

from proxy.protocol.formats.tagged import Tagged


class Cep(Tagged):
    """Steps in tags, plain words at the end."""

    def __init__(self) -> None:
        super().__init__("cep", "step", "tool")
