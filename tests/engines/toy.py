"""What the stand-ins generate with: real tokens, from a "model" that does what it is told.

A user who says `<do>{"say": "Hi"}</do>` is answered "Hi"; `{"calls": [["f", {"a": 1}]]}` makes an
adapter call, while the base only talks. Without such an order the answer is words drawn from the
adapter's id and the prompt's token ids, so that another adapter or another id gives another answer.
"""

from __future__ import annotations

import hashlib
import json
import re
from collections.abc import Iterator, Mapping, Sequence
from typing import NamedTuple

import msgspec
from tokenizers import Tokenizer
from tokenizers.decoders import DecodeStream

from proxy.protocol.formats.base import Format
from proxy.protocol.openai import FunctionCall

_WORDS = "amber birch cedar delta ember fjord grove heath inlet jetty knoll ledge moor north"
WORDS = _WORDS.split()
NO_CALLS = "The base model calls nothing."
_ORDER = re.compile(r"<do>(.*?)</do>", re.DOTALL)


def do(say: str = "", calls: Sequence[tuple[str, object]] = ()) -> str:
    """An order, to be put into a user's message."""
    return f"<do>{json.dumps({'say': say, 'calls': calls}, ensure_ascii=False)}</do>"


class Order(msgspec.Struct):
    say: str = ""
    calls: list[tuple[str, dict[str, object]]] = []


class Token(NamedTuple):
    id: int
    text: str
    special: bool
    logprob: float


def order(text: str) -> Order | None:
    """The last order in a text."""
    found = _ORDER.findall(text)
    return msgspec.json.decode(found[-1], type=Order) if found else None


class Toy:
    """A base model with adapters, id → format of its calls."""

    def __init__(self, tokenizer: Tokenizer, adapters: Mapping[str, Format], end: str) -> None:
        self.tokenizer = tokenizer
        self.adapters = dict(adapters)
        self.end = end

    def answer(self, adapter: str | None, ids: Sequence[int]) -> str:
        """The whole answer to a prompt."""
        said = order(self.tokenizer.decode(list(ids), skip_special_tokens=False))
        if said is None:
            return self.words(adapter, ids)
        if not said.calls:
            return said.say
        if adapter is None:
            return NO_CALLS
        calls = [FunctionCall(name, json.dumps(arguments)) for name, arguments in said.calls]
        return said.say + self.adapters[adapter].answer(calls)

    def words(self, adapter: str | None, ids: Sequence[int]) -> str:
        """Twenty-four words that only this adapter says to only this prompt."""
        seed = hashlib.sha256(json.dumps([adapter, list(ids)]).encode()).digest()[:24]
        return " ".join(WORDS[byte % len(WORDS)] for byte in seed)

    def tokens(self, text: str) -> Iterator[Token]:
        """The text as an engine streams it: letters that span tokens come with the last of them."""
        stream = DecodeStream(skip_special_tokens=True)
        for id in self.tokenizer.encode(text, add_special_tokens=False).ids:
            yield Token(id, stream.step(self.tokenizer, id) or "", False, -0.5)
        yield Token(self.tokenizer.token_to_id(self.end), self.end, True, -0.1)
