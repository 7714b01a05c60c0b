"""What a request to vLLM says. Source: vLLM's OpenAI server, 0.32."""

from __future__ import annotations

import hashlib
from collections.abc import Iterable
from functools import lru_cache
from typing import TypeAlias

import msgspec

from proxy.backends.dialect import Conversation, Sampling
from proxy.backends.embedded.grammar import SEPARATOR, Grammar, plan
from proxy.protocol.formats.constraint import Constraint
from proxy.protocol.openai import ChatRequest, Function, NamedChoice, Tool

Object: TypeAlias = dict[str, object]


def chat(conversation: Conversation, model: str, strict: bool) -> Object:
    """A streamed chat completion. With `strict`, calls are held to their tools' schemas; without,
    vLLM lets the model write what it likes and parses that."""
    request = conversation.request
    return {
        "model": model,
        "messages": request.messages,
        "logprobs": True,
        **streamed(conversation.sampling),
        **(_tools(request, strict) if request.offered else {}),
        **({"response_format": request.response_format} if request.response_format else {}),
    }


def constrained(constraint: Constraint | None) -> Object:
    """The fields that hold an answer to a constraint."""
    grammar = None if constraint is None else plan(constraint)
    return {} if grammar is None else {"structured_outputs": _structured_outputs(grammar)}


def _structured_outputs(grammar: Grammar) -> Object:
    """A grammar in vLLM's terms, which are xgrammar's.

    Grammars of ours and not the schemas: xgrammar's own leave white space free, with which a small
    model fills its answer to the end.
    """
    if not grammar.trigger:
        return {"grammar": grammar.bodies[0]}
    tags = [
        {
            "type": "tag",
            "begin": grammar.trigger,
            "content": {"type": "grammar", "grammar": body},
            "end": "",
        }
        for body in grammar.bodies
    ]
    if grammar.required and grammar.many:
        calls: Object = {
            "type": "tags_with_separator",
            "tags": tags,
            "separator": SEPARATOR,
            "at_least_one": True,
            "stop_after_first": False,
        }
    else:
        calls = {
            "type": "triggered_tags",
            "triggers": [grammar.trigger],
            "tags": tags,
            "at_least_one": grammar.required,
            "stop_after_first": not grammar.many,
        }
    tag = {"type": "structural_tag", "format": calls}
    return {"structural_tag": msgspec.json.encode(tag).decode()}


def apart(tenant: str) -> Object:
    """Keeps a tenant's prompts from being found in the prefix cache by others, by time either.

    Hashed, as vLLM takes neither long salts nor all characters. No secret is needed: nobody but the
    proxy says whose a prompt is.
    """
    return {"cache_salt": _salt(tenant)} if tenant else {}


@lru_cache(maxsize=256)
def _salt(tenant: str) -> str:
    return hashlib.sha256(tenant.encode()).hexdigest()


def streamed(sampling: Sampling) -> Object:
    fields: Object = {
        "stream": True,
        "stream_options": {"include_usage": True},
        "max_tokens": sampling.max_tokens,
        "temperature": sampling.temperature,
        "top_p": sampling.top_p,
        "frequency_penalty": sampling.frequency_penalty,
        "presence_penalty": sampling.presence_penalty,
    }
    return fields if sampling.seed is None else fields | {"seed": sampling.seed % 2**63}


def _tools(request: ChatRequest, strict: bool) -> Object:
    """The tools, `strict` where calls shall be held to their schemas: else vLLM only parses."""
    if request.tools_json:
        tools = _remembered(request.tools_json, strict)
    else:
        tools = _written(request.offered, strict)
    choice = request.tool_choice
    if isinstance(choice, NamedChoice) and choice.function is not None:
        named = {"type": "function", "function": {"name": choice.function.name}}
        return {"tools": tools, "tool_choice": named}
    parallel = request.parallel_tool_calls
    return {
        "tools": tools,
        "tool_choice": choice or "auto",
        **({} if parallel is None else {"parallel_tool_calls": parallel}),
    }


@lru_cache(maxsize=256)
def _remembered(tools: bytes, strict: bool) -> msgspec.Raw:
    """Tools that come again with every request; `parse_request` bounds their size."""
    offered = [tool.function for tool in msgspec.json.decode(tools, type=list[Tool])]
    return _written([function for function in offered if function is not None], strict)


def _written(functions: Iterable[Function], strict: bool) -> msgspec.Raw:
    tools = [
        {
            "type": "function",
            "function": {
                "name": function.name,
                "description": function.description or "",
                "parameters": function.schema,
                **({"strict": True} if strict else {}),
            },
        }
        for function in functions
    ]
    return msgspec.Raw(msgspec.json.encode(tools))
