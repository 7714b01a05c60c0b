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
    if _equal(answered, canary.expected, most, decode):
        return None
    if _equal(answered, canary.base, most, decode):
        return "the base model answers in its place: the server does not have the adapter"
    return f"its answer is not the trained one's within {most} tokens"


def _equal(
    answered: Sequence[int] | str, expected: Sequence[int], most: int, decode: Decode
) -> bool:
    wanted = list(expected[:most])
    if isinstance(answered, str):
        # A cut may fall inside a character.
        return answered.rstrip("�").strip() == decode(wanted).rstrip("�").strip()
    if list(answered[: len(wanted)]) == wanted:
        return True
    # Some engines keep the token that ends the answer to themselves.
    return len(expected) <= most and list(answered) == wanted[:-1]
