"""What is known of a row without the row: all that the steps look at that compare rows.

A sketch is made where the row is filtered, by whatever core or machine does it; the comparing is
done in one place. That keeps results the same, and memory at some 700 bytes a row.
"""

from __future__ import annotations

import hashlib
import sys
from array import array
from collections.abc import Sequence

import msgspec

from proxy.protocol.fingerprints import fingerprint_tools
from proxy.protocol.openai import MalformedRequest
from trainer.curate import words
from trainer.curate.code import imported, program
from trainer.errors import RecipeError
from trainer.recipe.curation import NearSettings
from trainer.rows import Row

PERMUTATIONS = 128
"""Hashes in a signature; the similarity that they estimate has a standard error of at most 0.045.
"""
_SEED = 42
_RANKS = {"human": 0, "relabel": 1, "log": 2, "import": 3, "synthetic": 4}


class Sketch(msgspec.Struct, frozen=True, array_like=True):
    """One row's."""

    id: int
    """The row's id as a number."""
    spelt: int
    """Of what the row says, as its source spells it: what rows are sorted by, so that a dataset's
    order is as good as drawn and its own rows alone decide it."""
    whole: int
    """Of all that the row holds, its source included."""
    same: int
    """Equal for rows that say the same, but for case, white space and the order of keys."""
    group: int
    """Of the row's group."""
    at: float
    """Seconds since the epoch; infinity where the row has no time."""
    rank: int
    """Of duplicates the one with the lowest stays: people before models before imports."""
    tool: int
    """Of the first tool called; 0 without a call."""
    abstains: int
    """1 where the row offers tools and calls none."""
    library: int
    """Of the first library that the code imports; 0 without one."""
    template: int
    """Of the question without names and numbers."""
    signature: bytes = b""
    """MinHash, PERMUTATIONS × 4 bytes; empty where near duplicates are not looked for."""


def sketches(rows: Sequence[Row], near: NearSettings | None) -> list[Sketch]:
    """A sketch for each row."""
    signed = signatures(rows, near) if near is not None else [b""] * len(rows)
    return [_sketch(row, one) for row, one in zip(rows, signed, strict=True)]


def signatures(rows: Sequence[Row], near: NearSettings) -> list[bytes]:
    """MinHash signatures of what rows ask and answer, by rensa's R-MinHash."""
    try:
        from rensa import RMinHash
    except ImportError as error:
        raise RecipeError(f"filters.near needs rensa ({error}); run `make train-setup`") from error
    sets = [sorted(words.shingles(row, near.words)) for row in rows]
    matrix = RMinHash.digest_matrix_from_token_sets(sets, PERMUTATIONS, _SEED)
    return [array("I", digest).tobytes() for digest in matrix.to_rows()]


def _sketch(row: Row, signature: bytes) -> Sketch:
    return Sketch(
        id=int(row.id, 16),
        spelt=_spelt(row),
        whole=words.digest(msgspec.json.encode(row).decode()),
        same=_same(row),
        group=words.digest(row.group),
        at=row.at if row.at is not None else float("inf"),
        rank=_rank(row),
        tool=words.digest(row.calls[0].name) if row.calls else 0,
        abstains=int(bool(row.functions) and not row.calls),
        library=_library(row),
        template=words.digest(words.template(row.question)),
        signature=signature,
    )


def _spelt(row: Row) -> int:
    said = (row.messages, row.functions, row.calls, row.text)
    return int.from_bytes(hashlib.sha256(msgspec.json.encode(said)).digest()[:8])


def _same(row: Row) -> int:
    """Rows differ that offer other tools, or that were said after another conversation."""
    said = [(m.role, " ".join(m.text.lower().split())) for m in row.messages]
    answered = " ".join(words.answer(row).split())
    return words.digest(repr((said, answered, _tools(row))))


def _tools(row: Row) -> str:
    try:
        return fingerprint_tools(row.functions)
    except MalformedRequest:
        # The recipe has no schema filter: then broken schemas differ when their texts do.
        return repr(row.functions)


def _rank(row: Row) -> int:
    """By who says it, and then by whether the tool said ok."""
    return 2 * _RANKS[row.label.kind] + (row.label.tool_outcome != "ok")


def _library(row: Row) -> int:
    """The first import of the code that is not the standard library's."""
    if row.calls or "```" not in row.text:
        return 0
    named = imported(program(row))
    first = next((name for name in named if name not in sys.stdlib_module_names), None)
    return words.digest(first) if first is not None else 0
