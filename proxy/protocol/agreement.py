"""Whether two answers say the same, decided by rules and not by a judge.

Calls are the same when they name the same tools with equal arguments (protocol.equality), in any
order. Two answers that call nothing agree where tools were offered: both abstain. Texts cannot be
compared by rules, unless they are identical.

The score is a share of arguments: of each call, matched leaves over the union of both sides' paths;
of an answer, the mean over the calls of the side that has more, in the best matching.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Hashable, Sequence
from typing import Literal, TypeAlias

import msgspec

from proxy.protocol.equality import Strings, decoded, leaves, normal
from proxy.protocol.exchange import Answer
from proxy.protocol.openai import FunctionCall

Kind: TypeAlias = Literal[
    "same",
    "both_abstain",
    "other_tool",
    "other_arguments",
    "false_call",
    "missed_call",
    "not_comparable",
]

_EXACT_MATCHING = 8
"""Calls of one answer up to which the best matching is searched; above it, the next best pair is
taken again and again. Chosen: 8 * 2**8 steps; answers with more calls that all differ are rare."""


class Agreement(msgspec.Struct, frozen=True):
    """What became of comparing an answer with a reference."""

    agrees: bool
    kind: Kind
    """`false_call`: only the given answer calls; `missed_call`: only the reference does."""
    score: float
    """0 to 1: the share of the arguments that agrees."""


_NOT_COMPARABLE = Agreement(False, "not_comparable", 0.0)


def compare(
    given: Answer, reference: Answer, how: Strings = "exact", *, tools_offered: bool = True
) -> Agreement:
    """How far an answer agrees with a reference."""
    ours = [call.function for call in given.tool_calls]
    theirs = [call.function for call in reference.tool_calls]
    if not ours and not theirs:
        return _texts(given, reference, tools_offered)
    if not theirs:
        return Agreement(False, "false_call", 0.0)
    if not ours:
        return Agreement(False, "missed_call", 0.0)
    if stance(ours, how) == stance(theirs, how):
        return Agreement(True, "same", 1.0)
    named = Counter(call.name for call in ours) == Counter(call.name for call in theirs)
    return Agreement(
        False, "other_arguments" if named else "other_tool", matched(ours, theirs, how)
    )


def _texts(given: Answer, reference: Answer, tools_offered: bool) -> Agreement:
    ours, theirs = given.text or given.refusal, reference.text or reference.refusal
    if not ours or not theirs:
        # Nothing at all was said, or was kept: that is no abstention.
        return _NOT_COMPARABLE
    if tools_offered:
        return Agreement(True, "both_abstain", 1.0)
    return Agreement(True, "same", 1.0) if ours == theirs else _NOT_COMPARABLE


def stance(calls: Sequence[FunctionCall], how: Strings = "exact") -> Hashable:
    """What calls come to, equal for the same calls in any order."""
    return frozenset(Counter(_normal(call, how) for call in calls).items())


def _normal(call: FunctionCall, how: Strings) -> Hashable:
    return call.name, normal(decoded(call.arguments), how)


def arguments_score(given: str, reference: str, how: Strings = "exact") -> float:
    """Matched leaves over the union of paths of two JSON texts of arguments; 1 for none at all."""
    ours, theirs = leaves(decoded(given), how), leaves(decoded(reference), how)
    paths = ours.keys() | theirs.keys()
    equal = sum(path in ours and path in theirs and ours[path] == theirs[path] for path in paths)
    return equal / len(paths) if paths else 1.0


def matched(
    given: Sequence[FunctionCall], reference: Sequence[FunctionCall], how: Strings = "exact"
) -> float:
    """Score of the best matching of calls, 0 to 1; a call without a partner scores 0."""
    scores = [[_pair(one, other, how) for other in reference] for one in given]
    most = max(len(given), len(reference))
    if not scores or not reference:
        return 0.0 if most else 1.0
    if most > _EXACT_MATCHING:
        return _greedy(scores) / most
    return _best(scores, len(reference)) / most


def _pair(given: FunctionCall, reference: FunctionCall, how: Strings) -> float:
    if given.name != reference.name:
        return 0.0
    return arguments_score(given.arguments, reference.arguments, how)


def _best(scores: Sequence[Sequence[float]], width: int) -> float:
    """Sum of the best matching; by what is the best for each set of columns that are taken."""
    best = {0: 0.0}
    for row in scores:
        after = dict(best)
        for taken, total in best.items():
            for column in range(width):
                if not taken & (1 << column):
                    now = taken | (1 << column)
                    after[now] = max(after.get(now, 0.0), total + row[column])
        best = after
    return max(best.values())


def _greedy(scores: Sequence[Sequence[float]]) -> float:
    pairs = sorted(
        ((s, i, j) for i, row in enumerate(scores) for j, s in enumerate(row)), reverse=True
    )
    rows: set[int] = set()
    columns: set[int] = set()
    total = 0.0
    for score, row, column in pairs:
        if row not in rows and column not in columns:
            rows.add(row)
            columns.add(column)
            total += score
    return total
