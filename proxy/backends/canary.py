"""Whether a server answers a canary as the trainer's adapter did, and not as its base model.

TGI answers an unknown adapter with the base model and says nothing, so that an answer like the
base's is a failure of its own, with its own remedy. Quantised weights may differ from those that
the adapter was trained on, late in an answer: only its beginning is compared, exactly.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from itertools import zip_longest

from proxy.protocol.adapter import Canary

Decode = Callable[[Sequence[int]], str]
"""Token ids → text, without special tokens."""


def tokens(canary: Canary, agree: int) -> int:
    """How many tokens to ask for: `agree`, and as far as adapter and base first differ."""
    pairs = enumerate(zip_longest(canary.expected, canary.base), start=1)
    differ = next((place for place, (ours, base) in pairs if ours != base), 0)
    return max(agree, differ)


def complaint(
    canary: Canary, answered: Sequence[int] | str, agree: int, decode: Decode
) -> str | None:
    """Why the answer is no proof of the adapter; None when it is one."""
    if canary.expected == canary.base:
        return "its canary cannot tell it from the base model; train the adapter again"
    most = tokens(canary, agree)
    if isinstance(answered, str):
        # A cut may fall inside a character.
        text = answered.rstrip("�").strip()
        as_base = text == decode(canary.base[:most]).rstrip("�").strip()
        as_trained = text == decode(canary.expected[:most]).rstrip("�").strip()
    else:
        as_base = list(answered[:most]) in _forms(canary.base, most)
        # One that does not know where a turn ends goes on; up to there it must be the trained one.
        ours = _forms(canary.expected, most)
        as_trained = list(answered) in ours or list(answered[: len(ours[0])]) == ours[0]
    if as_base:
        return "the base model answers in its place: the server does not have the adapter"
    return None if as_trained else f"its answer is not the trained one's within {most} tokens"


def _forms(answer: Sequence[int], most: int) -> list[list[int]]:
    """What an engine gives of an answer: some keep the token that ends it to themselves."""
    whole = list(answer[:most])
    return [whole, whole[:-1]] if whole and len(answer) <= most else [whole]
