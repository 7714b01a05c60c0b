"""Hermes function calling: any number of `<tool_call>{"name": …, "arguments": {…}}</tool_call>`.

Source: NousResearch, Hermes-Function-Calling; vLLM parses it as `hermes`.
"""

from __future__ import annotations

from proxy.protocol.formats.tagged import Tagged


class Hermes(Tagged):
    """Calls in tags, text around them."""

    def __init__(self) -> None:
        super().__init__("hermes", "tool_call", "name")
