"""A format: how a conversation becomes prompt text, and how answer text becomes tool calls.

The trainer and the proxy render with the same template, the one frozen in the adapter bundle, and
parse with the same code: train/serve parity holds by construction. A template is Jinja in a
sandbox with a budget, since bundles come from outside.
"""

from __future__ import annotations

import functools
import json
import re
from collections.abc import Sequence
from importlib import resources
from typing import Protocol

import msgspec
from jinja2 import Template

from proxy.ids import new_id
from proxy.protocol.formats import sandbox
from proxy.protocol.formats.constraint import Calls
from proxy.protocol.openai import Function, FunctionCall, Message, ToolCall

END = "<|im_end|>"
"""Ends every turn of the ChatML family; the last supervised token of a training row."""

_SMOLLM2 = (
    *("<|im_start|>", "<|im_end|>", "<|endoftext|>", "<repo_name>", "<reponame>", "<file_sep>"),
    *("<filename>", "<gh_stars>", "<issue_start>", "<issue_comment>", "<issue_closed>"),
    *("<jupyter_start>", "<jupyter_text>", "<jupyter_code>", "<jupyter_output>"),
    *("<jupyter_script>", "<empty_output>"),
)
_LLAMA3 = (
    *("<|begin_of_text|>", "<|end_of_text|>", "<|start_header_id|>", "<|end_header_id|>"),
    *("<|eom_id|>", "<|eot_id|>", "<|python_tag|>", "<|finetune_right_pad_id|>", "<|image|>"),
    *(f"<|reserved_special_token_{number}|>" for number in range(256)),
)
CONTROL = (*_SMOLLM2, *_LLAMA3)
"""Special tokens of the model families that we know, which a message's text must not smuggle into
the prompt. One list for all, so that a text is rendered alike for each."""


class UnknownTemplate(ValueError):
    """A template is named that does not exist."""


class Unrenderable(ValueError):
    """A template is broken, reaches for what it may not, or takes too much to show a request."""


class Parsed(msgspec.Struct, frozen=True):
    """What an answer's text says: free text, then calls. `broken` is text that began as a call."""

    text: str
    calls: tuple[ToolCall, ...] = ()
    broken: str = ""


class Format(Protocol):
    """One way to write tools, calls and answers. Stateless."""

    name: str
    template: str
    """Name of the template that new adapters of this format are trained with."""
    chat: str
    """Name of the same model family's template for conversations without tools."""
    end: str
    """The token that ends a turn in both."""
    opening: str
    """The text that begins a call; what comes before it is text for the reader."""
    many: bool
    """Whether an answer may hold several calls."""

    def answer(self, calls: Sequence[FunctionCall], query: str = "") -> str:
        """The text with which a model calls these functions; `parse` is its inverse.

        `query` is what the user said last, for the format that repeats it.
        """

    def parse(self, text: str) -> Parsed:
        """The calls in a whole answer."""

    def constraint(self, functions: Sequence[Function], required: bool, many: bool) -> Calls:
        """What an answer may look like when only these functions may be called."""


def template(name: str) -> str:
    """Source of a template that ships with Headrace, whole: its one kind of include is resolved.

    The variables are those of transformers' chat templates, so that a frozen template can also be
    given to an engine (`--chat-template`).
    """
    folder = resources.files(__package__).joinpath("templates")
    try:
        source: str = folder.joinpath(f"{name}.jinja").read_text()
    except OSError:
        raise UnknownTemplate(f"no template {name!r} ships with Headrace") from None
    return source.replace("{# tools.jinja #}\n", folder.joinpath("tools.jinja").read_text())


def render(template: str, messages: Sequence[Message], functions: Sequence[Function] = ()) -> str:
    """The prompt up to where the assistant's answer begins; raises Unrenderable."""
    try:
        return sandbox.rendered(
            _compiled(template),
            messages=[_plain(message) for message in messages],
            tools=[_tool(function) for function in functions],
            add_generation_prompt=True,
        )
    except Exception as error:  # a template is a program, and may raise anything
        kind = type(error).__name__
        raise Unrenderable(f"the template cannot show the request: {kind}") from error


def call(name: str, arguments: str) -> ToolCall:
    """A tool call with an id of its own."""
    return ToolCall(id=f"call_{new_id()[:24]}", function=FunctionCall(name, arguments))


_CONTROLS = re.compile(
    "|".join([*map(re.escape, (*_SMOLLM2, *_LLAMA3[:9])), r"<\|reserved_special_token_\d{1,3}\|>"])
)


def neutral(text: str) -> str:
    """The text with special tokens broken up, so that they are read as text."""
    return _CONTROLS.sub(lambda found: "< " + found[0][1:], text)


@functools.lru_cache(maxsize=64)
def _compiled(source: str) -> Template:
    return sandbox.Sandbox(dumps).made(source)


def dumps(value: object) -> str:
    """JSON as models have read it most: a space after "," and ":", all letters as such."""
    return json.dumps(value, ensure_ascii=False)


def _plain(message: Message) -> dict[str, object]:
    return {
        "role": {"developer": "system", "function": "tool"}.get(message.role, message.role),
        "content": neutral(message.text),
        "name": neutral(message.name or ""),
        "tool_calls": [_plain_call(c.function) for c in message.tool_calls or () if c.function],
    }


def _plain_call(call: FunctionCall) -> dict[str, object]:
    arguments = _neutral(decoded(call.arguments or "{}"))
    return {"type": "function", "function": {"name": neutral(call.name), "arguments": arguments}}


def _tool(function: Function) -> dict[str, object]:
    parameters = bytes(function.parameters).decode() or "{}"
    described = {
        "name": neutral(function.name),
        "description": neutral(function.description or ""),
        "parameters": _neutral(decoded(parameters)),
    }
    return {"type": "function", "function": described}


def _neutral(value: object) -> object:
    """The same for a JSON value; after decoding, or an escape would carry a token past us."""
    match value:
        case str():
            return neutral(value)
        case dict():
            return {neutral(key): _neutral(inner) for key, inner in value.items()}
        case list():
            return [_neutral(inner) for inner in value]
        case _:
            return value


def decoded(text: str) -> object:
    """The JSON value in `text`, or the text itself where it is none, or a bottomless one."""
    try:
        return msgspec.json.decode(text)
    except (msgspec.DecodeError, RecursionError):
        return text
