"""Does the time that a refusal takes tell how near to the secret it was?

    python -m tests.harden.timing [--pairs 100000]

prints one line for each secret that somebody may guess at. Something that is right but for its end,
and something that is wrong from its beginning, are tried in random order; where the first takes
longer, or shorter, more often than a coin would say, time tells. 4.5 standard deviations are the
bound of Reparaz, Balasch and Verbauwhede, "Dude, is my code constant time?" (2017); here they are a
sign test's, as the times of a busy machine are not independent. The last line is a comparison that
ends with the first letter that is wrong: were that not seen, nothing would be.
"""

from __future__ import annotations

import argparse
import math
import random
import statistics
import sys
import time
from collections.abc import Callable
from typing import NamedTuple

from proxy.auth import Authenticator
from proxy.dashboard.session import Seal
from proxy.errors import Unauthenticated
from proxy.keys.base import Key

BOUND = 4.5
_KEY = "hr-0123456789abcdef0123456789abcdef"
_LETTERS = "ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz"


class Secret(NamedTuple):
    true: str
    """All that may be guessed at; what is tried differs from it."""
    accepts: Callable[[str], bool]
    """Tries one."""


def secrets() -> dict[str, Secret]:
    """Each secret, and what lets it in."""
    auth, seal = Authenticator([Key(key=_KEY)]), Seal(b"s" * 32)
    content, _, signature = seal.begin(b"d" * 32, 1.0).partition(".")
    # The last letter of base64 has bits that say nothing.
    signed, last = signature[:-1], signature[-1]

    def knows(tried: str) -> bool:
        try:
            auth.authenticate({b"authorization": b"Bearer " + tried.encode()})
        except Unauthenticated:
            return False
        return True

    def opens(tried: str) -> bool:
        return seal.opened(f"{content}.{tried}{last}") is not None

    return {
        "a key": Secret(_KEY, knows),
        "a session's signature": Secret(signed, opens),
        "a form's token": Secret(seal.token("a"), lambda tried: seal.is_token(tried, "a")),
        "(letter by letter)": Secret(_KEY, lambda tried: _letter_by_letter(tried, _KEY)),
    }


def _letter_by_letter(tried: str, true: str) -> bool:
    return all(one == other for one, other in zip(tried, true, strict=True))


def compared(secret: Secret, pairs: int, chance: random.Random) -> tuple[float, float]:
    """Standard deviations from a coin's, and the median of the differences in nanoseconds."""
    differences = []
    for _ in range(pairs):
        signs = chance.sample((1, -1), 2)
        tries = [(_tried(secret.true, sign > 0, chance), sign) for sign in signs]
        differences.append(sum(sign * _took(secret.accepts, tried) for tried, sign in tries))
    slower = sum(one > 0 for one in differences)
    untied = sum(one != 0 for one in differences)
    return (2 * slower - untied) / math.sqrt(max(untied, 1)), statistics.median(differences)


def _tried(true: str, is_near: bool, chance: random.Random) -> str:
    """As long as what is true; made in the same way whether near or far, which would show."""
    other = chance.choices(_LETTERS, k=len(true))
    other[-1] = chance.choice([letter for letter in _LETTERS if letter != true[-1]])
    return "".join(true[:-1] if is_near else other[:-1]) + other[-1]


def _took(accepts: Callable[[str], bool], tried: str) -> int:
    began = time.perf_counter_ns()
    accepts(tried)
    return time.perf_counter_ns() - began


def main() -> None:
    given = argparse.ArgumentParser(description=__doc__)
    given.add_argument("--pairs", type=int, default=100_000)
    given.add_argument("--seed", type=int, default=1)
    asked = given.parse_args()
    chance, told = random.Random(asked.seed), []
    print("| secret | pairs | near but for its end is slower by | deviations |\n|---|---|---|---|")
    for name, secret in secrets().items():
        deviations, median = compared(secret, asked.pairs, chance)
        told.append(abs(deviations) > BOUND)
        print(f"| {name} | {asked.pairs} | {median:.0f} ns | {deviations:+.1f} |", flush=True)
    *ours, control = told
    sys.exit(any(ours) or not control)


if __name__ == "__main__":
    main()
