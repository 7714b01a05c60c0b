"""A router model from the record: which domain a question belongs to, where its tools do not say.

    exchanges ─placed by their tools→ questions ─split→ train, tune, test
       ─fit→ linear model ─temperature→ probabilities ─tune→ how sure is sure enough ─test→ report

Only what the proxy was told is learned from: a domain that it guessed, or that is the default for
mixed tools, is no answer. The features are the proxy's (protocol.router).
"""

from __future__ import annotations

import hashlib
from collections import Counter
from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path
from typing import NamedTuple

import msgspec
import numpy as np
from sklearn.calibration import CalibratedClassifierCV
from sklearn.feature_extraction.text import HashingVectorizer
from sklearn.linear_model import LogisticRegression

from proxy.protocol import router, segments, tombstones
from proxy.protocol.evidence.intervals import Interval, wilson
from proxy.protocol.exchange import CHAT, Exchange, NewerRecord
from proxy.protocol.openai import Message
from proxy.protocol.parquet import EXCHANGES, SUFFIX, Rows
from proxy.protocol.router import FEATURES, RouterModel
from proxy.protocol.sealing import SealError
from trainer.calibration import Judged, calibrate
from trainer.errors import DatasetError, TrainingError

PLACED = frozenset(("exact", "fingerprint", "glob", "matched", "unknown", "no_tools"))
"""Reasons of routing by which a domain counts as known: all but guesses and mixed tools."""
LEAST = 30
"""Questions without which a domain cannot be learned; its requests stay with the defaults.
Chosen: 20 to learn from, the rest to test on."""
_STRENGTH = 10.0
"""Inverse of the regularisation. Chosen of 1, 10, 100 (docs/LOG.md)."""
_FOLDS = 5
"""Parts of the training side, each of which is predicted by the others to find the temperature."""
_TUNE, _TEST = 70, 85
"""Of 100 hashes, where the sides begin: 70 % train, 15 % tune, 15 % test."""
_BATCH = 512
"""Rows of the archive that are in memory at once."""


class Example(NamedTuple):
    """A question and the domain that its tools named."""

    text: str
    domain: str
    group: str
    """Its conversation: stays on one side."""


class Share(NamedTuple):
    """Hits of n, with a 95 % interval (Wilson)."""

    hits: int
    n: int

    @property
    def interval(self) -> Interval:
        return wilson(self.hits, self.n)

    def __str__(self) -> str:
        low, high = self.interval.low, self.interval.high
        return f"{self.hits / max(self.n, 1):.1%} ({low:.1%} to {high:.1%}, n={self.n})"


class Report(NamedTuple):
    """What the model is worth, on questions that it has not seen."""

    questions: dict[str, int]
    """Of each domain, all sides together."""
    right: Share
    """Of all test questions, those whose likeliest domain is theirs."""
    floor: float
    """How sure the model must be for at most `target_error` wrong guesses, by the tuning side."""
    followed: Share
    """Of all test questions, those with a guess as sure as that."""
    right_where_followed: Share


class Trained(NamedTuple):
    model: RouterModel
    report: Report


# ---------------------------------------------------------------- the record


class _Asked(msgspec.Struct):
    messages: list[Message] = []


_asked = msgspec.json.Decoder(_Asked)


def recorded(directory: Path) -> Iterator[Exchange]:
    """The exchanges of a record, in segments and in its `archive`, without what was erased.

    Raises DatasetError for a record that is encrypted, or a newer release's.
    """
    archive = directory / "archive"
    gone = tombstones.erased(directory) | tombstones.erased(archive)
    try:
        for exchange in _everything(directory, archive):
            if exchange.id not in gone:
                yield exchange
    except SealError as error:
        raise DatasetError(f"{directory}: {error}; a router learns from plain records") from error
    except NewerRecord as error:
        raise DatasetError(str(error)) from error


def _everything(directory: Path, archive: Path) -> Iterator[Exchange]:
    yield from segments.read(directory)
    files = sorted((archive / EXCHANGES).rglob(f"*{SUFFIX}"))
    if not files:
        return
    import pyarrow.parquet

    rows = Rows()
    for path in files:
        opened = pyarrow.parquet.ParquetFile(path)
        for batch in opened.iter_batches(_BATCH, columns=["exchange", "sealed"]):
            yield from rows.exchanges(batch)


def examples(exchanges: Iterable[Exchange]) -> list[Example]:
    """The questions whose domain is known, each once; in an order of their own."""
    found = {}
    for exchange in exchanges:
        text = _question(exchange)
        if text:
            group = exchange.conversation or text
            found[(text, exchange.domain)] = Example(text, exchange.domain, group)
    return [found[key] for key in sorted(found)]


def _question(exchange: Exchange) -> str:
    if exchange.route not in PLACED or exchange.endpoint != CHAT:
        return ""
    try:
        messages = _asked.decode(exchange.request).messages
    except (ValueError, RecursionError):
        # An old form of a message; one question less.
        return ""
    return " ".join(router.words(router.question(messages)))


# ---------------------------------------------------------------- the model


def train(asked: Sequence[Example], target_error: float = 0.05) -> Trained:
    """A model of the domains that have enough questions, and what it is worth.

    Raises DatasetError where fewer than two domains have.
    """
    counts = Counter(example.domain for example in asked)
    learned = {domain: n for domain, n in sorted(counts.items()) if n >= LEAST}
    if len(learned) < 2:
        raise DatasetError(
            f"a router needs {LEAST} questions of each of two domains; the record has"
            f" {dict(counts) or 'none'}: record more, with `record.level: full`"
        )
    kept = [example for example in asked if example.domain in learned]
    sides = _split(kept)
    domains, weights, bias = _fit(sides.train)
    bare = RouterModel(domains, weights, bias, calibrate([Judged(0, False)], "tools", ""))
    calibration = calibrate(_judged(bare, sides.tune), "tools", _fingerprint(kept))
    model = RouterModel(domains, weights, bias, calibration)
    floor = calibration.floor(target_error)
    return Trained(model, _report(learned, _judged(model, sides.test), floor))


class _Sides(NamedTuple):
    train: list[Example]
    tune: list[Example]
    test: list[Example]


def _split(asked: Sequence[Example]) -> _Sides:
    sides = _Sides([], [], [])
    for example in asked:
        digest = hashlib.blake2b(example.group.encode(errors="replace"), digest_size=8).digest()
        bucket = int.from_bytes(digest) % 100
        sides[(bucket >= _TUNE) + (bucket >= _TEST)].append(example)
    if not (sides.tune and sides.test):
        raise DatasetError("all questions belong to a few conversations; record more of them")
    return sides


def _fit(side: Sequence[Example]) -> tuple[list[str], router.Floats, router.Floats]:
    """Domains, weights (FEATURES, domains) and bias (domains,)."""
    hashing = HashingVectorizer(analyzer=router.grams, n_features=FEATURES)
    linear = LogisticRegression(C=_STRENGTH, max_iter=1000)
    scaled = CalibratedClassifierCV(linear, method="temperature", cv=_FOLDS, ensemble=False)
    vectors = hashing.transform([example.text for example in side])
    try:
        scaled.fit(vectors, [example.domain for example in side])
    except ValueError as error:
        raise TrainingError(f"the questions cannot be told apart: {error}") from error
    (whole,) = scaled.calibrated_classifiers_
    sharpness = float(whole.calibrators[0].beta_)
    coefficients, bias = whole.estimator.coef_, whole.estimator.intercept_
    if len(coefficients) == 1:
        # Of two domains scikit-learn keeps the second's weights; the first's are their opposite.
        coefficients, bias = np.vstack([-coefficients, coefficients]), np.hstack([-bias, bias])
    weights = np.ascontiguousarray(sharpness * coefficients.T, dtype=np.float32)
    domains = [str(domain) for domain in scaled.classes_]
    model = domains, weights, (sharpness * bias).astype(np.float32)
    _check_export(model, side[:100], scaled.predict_proba(vectors[:100]))
    return model


def _check_export(
    exported: tuple[list[str], router.Floats, router.Floats],
    side: Sequence[Example],
    expected: router.Floats,
) -> None:
    """Raise TrainingError unless the proxy will say what scikit-learn says."""
    model = RouterModel(*exported, calibrate([Judged(0, False)], "tools", ""))
    said = [model.probabilities(example.text) for example in side]
    if not np.allclose(said, expected, atol=1e-4):
        raise TrainingError("the model says something else outside of scikit-learn; report this")


def _judged(model: RouterModel, side: Sequence[Example]) -> list[Judged]:
    judged = []
    for example in side:
        shares = model.probabilities(example.text)
        surest = max(range(len(shares)), key=shares.__getitem__)
        judged.append(Judged(shares[surest], model.domains[surest] == example.domain))
    return judged


def _report(questions: dict[str, int], judged: Sequence[Judged], floor: float) -> Report:
    followed = [one for one in judged if one.confidence >= floor]
    return Report(
        questions=questions,
        right=Share(sum(one.is_right for one in judged), len(judged)),
        floor=floor,
        followed=Share(len(followed), len(judged)),
        right_where_followed=Share(sum(one.is_right for one in followed), len(followed)),
    )


def _fingerprint(asked: Sequence[Example]) -> str:
    return hashlib.sha256(msgspec.json.encode(asked)).hexdigest()
