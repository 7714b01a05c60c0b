"""The router model: which domain a question belongs to, told by its characters alone.

    text → words → character n-grams → hashes, signed → a unit vector → linear → softmax

It is for requests whose tools do not say: tools of several domains, or none. The trainer makes it,
the proxy asks it; what is looked at is defined here, once. The hash is scikit-learn's
(HashingVectorizer), which the trainer uses, so that neither needs the other's library.
Source of the trick: Weinberger et al., "Feature Hashing for Large Scale Multitask Learning" (2009).

The file is safetensors: `weights` (FEATURES, domains), `bias` (domains,), and in its metadata the
domains' names and how often the model was right on held-out questions. Needs the extra `router`.
"""

from __future__ import annotations

import functools
import re
from collections.abc import Collection, Iterator, Sequence
from pathlib import Path
from typing import NamedTuple

import mmh3
import msgspec
import numpy as np
from numpy.typing import NDArray
from safetensors import SafetensorError, safe_open
from safetensors.numpy import save_file

from proxy.protocol.calibration import Calibration
from proxy.protocol.openai import Message

FEATURES = 2**15
"""Hashed features. Chosen: 128 KiB a domain; a quarter of them is no worse, four times
as many are no better (docs/LOG.md)."""
MAX_CHARACTERS = 1000
"""Of a question that are read: they say what it is about, and bound the time that it takes."""
VERSION = "1"
"""Of what is looked at, and of the file."""

_SIZES = (3, 4, 5)
"""Characters of an n-gram."""
_WORD = re.compile(r"\w{1,32}")
_REMEMBERED = 16_384
"""Words whose hashes are kept at hand. Chosen: some 10 MiB, and most of the words in use."""
_MAX_DOMAINS = 1024
_NOTHING = np.empty(0, np.int64)

Floats = NDArray[np.float32]


class Features(NamedTuple):
    """A vector of FEATURES numbers, most of which are 0."""

    indices: NDArray[np.intp]
    values: Floats


class RouterError(Exception):
    """A router model that cannot be used; the message names the file and the remedy."""


class Prediction(NamedTuple):
    """What the model makes of a question."""

    domain: str
    probability: float
    """0 to 1, over all domains that the model knows."""


# ---------------------------------------------------------------- what is looked at


def question(messages: Sequence[Message]) -> str:
    """What the user said last; "" where the user said nothing."""
    return next((m.text for m in reversed(messages) if m.role == "user"), "")


def grams(text: str) -> Iterator[str]:
    """The n-grams of a text, each word's with the spaces around it."""
    for word in words(text):
        yield from _pieces(word)


def words(text: str) -> list[str]:
    """What the n-grams are taken from: letters and digits in lower case."""
    return _WORD.findall(text[:MAX_CHARACTERS].lower())


def features(text: str) -> Features:
    """The features of a text, as a vector of length 1; none for a text without words."""
    signed = np.concatenate([_NOTHING, *map(_hashes, words(text))])
    counts = np.bincount(np.abs(signed) % FEATURES, np.sign(signed), FEATURES)
    indices = np.flatnonzero(counts)
    values = counts[indices]
    length = np.sqrt(values @ values)
    return Features(indices, (values / length).astype(np.float32))


@functools.lru_cache(maxsize=_REMEMBERED)
def _hashes(word: str) -> NDArray[np.int64]:
    return np.array([mmh3.hash(piece) for piece in _pieces(word)], dtype=np.int64)


def _pieces(word: str) -> list[str]:
    padded = f" {word} "
    return [padded[at : at + size] for size in _SIZES for at in range(len(padded) - size + 1)]


# ---------------------------------------------------------------- the model


class RouterModel:
    """Predicts domains. Made once; holds no state of its own."""

    def __init__(
        self, domains: Sequence[str], weights: Floats, bias: Floats, calibration: Calibration
    ) -> None:
        """`weights` (FEATURES, domains) and `bias` (domains,); raises ValueError for others."""
        if weights.shape != (FEATURES, len(domains)) or bias.shape != (len(domains),):
            raise ValueError(f"weights {weights.shape} do not fit {len(domains)} domains")
        if weights.dtype != np.float32 or bias.dtype != np.float32:
            raise ValueError(f"weights are {weights.dtype}, not float32")
        if not (np.isfinite(weights).all() and np.isfinite(bias).all()):
            raise ValueError("weights are not finite")
        self.domains = list(domains)
        self.calibration = calibration
        """How often predictions of each probability were right."""
        self._weights = weights
        self._bias = bias

    def probabilities(self, text: str) -> list[float]:
        """Of each domain, in the order of `domains`; they add up to 1."""
        indices, values = features(text)
        logits = values @ self._weights[indices] + self._bias
        odds = np.exp(logits - logits.max())
        shares: list[float] = (odds / odds.sum()).tolist()
        return shares

    def predict(self, messages: Sequence[Message], among: Collection[str]) -> Prediction | None:
        """The likeliest of these domains for a conversation's question; None where that has no
        words, or the model knows none of them."""
        text = question(messages)
        if not words(text):
            return None
        shares = zip(self.domains, self.probabilities(text), strict=True)
        known = [Prediction(domain, share) for domain, share in shares if domain in among]
        return max(known, key=lambda one: one.probability, default=None)

    def write(self, path: Path) -> None:
        """One safetensors file."""
        metadata = {
            "headrace_router": VERSION,
            "domains": msgspec.json.encode(self.domains).decode(),
            "calibration": msgspec.json.encode(self.calibration).decode(),
        }
        save_file({"weights": self._weights, "bias": self._bias}, path, metadata)


def read(path: Path) -> RouterModel:
    """The model in a file; raises RouterError."""
    remedy = "make one with `headrace-trainer router train`"
    try:
        with safe_open(path, "numpy") as file:
            metadata = file.metadata() or {}
            if metadata.get("headrace_router") != VERSION:
                raise RouterError(f"{path}: no router model of version {VERSION}; {remedy}")
            domains = msgspec.json.decode(metadata["domains"], type=list[str])
            if not 2 <= len(domains) <= _MAX_DOMAINS:
                raise ValueError(f"{len(domains)} domains")
            calibration = msgspec.json.decode(metadata["calibration"], type=Calibration)
            weights, bias = file.get_tensor("weights"), file.get_tensor("bias")
            return RouterModel(domains, weights, bias, calibration)
    except OSError as error:
        raise RouterError(f"{path}: {error.strerror or error}; {remedy}") from error
    except (SafetensorError, KeyError, ValueError) as error:
        raise RouterError(f"{path}: not a router model ({error}); {remedy}") from error
