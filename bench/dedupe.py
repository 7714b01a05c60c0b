"""Exact and near duplicates out of a million rows, beside datasketch's plain recipe.

Rows are made up: questions of 8 to 40 words with a tool call or an answer; one in five is a copy of
an earlier one, to the letter or with one word changed. Both sides read the same file of rows, and
look at the same runs of three words with 128 hashes and the same threshold. The peer does what
datasketch's documentation does: a MinHash for each row, looked up in a MinHashLSH, and put in when
nothing like it is there; on a sample, as it takes minutes for 100,000.

    python bench/dedupe.py --count 1000000 --sample 100000
"""

from __future__ import annotations

import argparse
import multiprocessing
import os
import random
import tempfile
import time
from collections.abc import Iterator
from importlib import metadata
from itertools import islice
from pathlib import Path

import msgspec
import numpy as np

from proxy.protocol.openai import Function, FunctionCall, Message
from trainer import rows
from trainer.curate import duplicates, words
from trainer.curate.chain import Plan
from trainer.curate.execute import batched, processes
from trainer.curate.sketch import PERMUTATIONS
from trainer.curate.table import Table
from trainer.recipe import BfclSettings, Recipe
from trainer.recipe.curation import FilterSettings, NearSettings
from trainer.rows import Row

THRESHOLD = 0.85
WORDS = [f"{a}{b}{c}" for a in "bdfgklmnprst" for b in "aeiou" for c in "bdgklmnprst"]
TOOL = Function(
    "find_room",
    "Finds a room.",
    msgspec.Raw(b'{"type":"object","properties":{"city":{"type":"string"}}}'),
)


def made(count: int) -> Iterator[Row]:
    """Rows, some 20 % of them again or nearly again."""
    chance = random.Random(0)
    asked: list[list[str]] = []
    for number in range(count):
        drawn = chance.random()
        if asked and drawn < 0.2:
            said = list(chance.choice(asked))
            if drawn < 0.1 and len(said) > 3:
                said[chance.randrange(len(said))] = chance.choice(WORDS)
        else:
            said = chance.choices(WORDS, k=chance.randint(8, 40))
            if len(asked) < 50_000:
                asked.append(said)
        yield _row(" ".join(said), number)


def _row(question: str, number: int) -> Row:
    return Row(
        messages=[Message(role="user", content=question)],
        functions=[TOOL],
        calls=[FunctionCall("find_room", f'{{"city":"{question.split()[0]}"}}')],
        source=f"bench:{number}",
        license="none",
        group=f"conversation {number}",
    )


class Result(msgspec.Struct):
    name: str
    rows: int
    kept: int
    seconds: float
    peak_mb: float


def ours(path: Path, folder: Path, cores: int) -> Result:
    """As `dataset build` does it: sketches on the cores, comparing here."""
    off = dict.fromkeys(FilterSettings.__struct_fields__)
    near = NearSettings(threshold=THRESHOLD)
    recipe = Recipe(
        domain="bench",
        format="structured",
        template="structured",
        sources=[BfclSettings(categories=[])],
        filters=FilterSettings(**{**off, "near": near}),
    )
    began, peak = time.monotonic(), _Peak()
    table = Table(folder)
    number = 0
    for _, judged in processes(Plan(recipe, None), batched(rows.read(path)), cores):
        for one in judged:
            table.add(one.row, one.sketch, number)
            number += 1
        peak.look()
    order = table.order()
    exact = duplicates.same(table.column("same"), order)
    pairs = np.concatenate([exact, duplicates.near(table.signatures(), order, THRESHOLD)])
    peak.look()
    firsts = duplicates.firsts(duplicates.clusters(pairs, number), order)
    kept = int((firsts == np.arange(number)).sum())
    peak.look()
    return Result("ours", number, kept, time.monotonic() - began, peak.mb)


def theirs(path: Path, sample: int) -> Result:
    """datasketch, row by row."""
    from datasketch import MinHash, MinHashLSH

    began, peak = time.monotonic(), _Peak()
    index = MinHashLSH(threshold=THRESHOLD, num_perm=PERMUTATIONS)
    kept = 0
    for number, row in enumerate(islice(rows.read(path), sample)):
        sketch = MinHash(num_perm=PERMUTATIONS)
        sketch.update_batch([one.encode() for one in words.shingles(row, 3)])
        if not index.query(sketch):
            index.insert(number, sketch)
            kept += 1
        if number % 10_000 == 0:
            peak.look()
    peak.look()
    return Result("datasketch", sample, kept, time.monotonic() - began, peak.mb)


class _Peak:
    """The most memory that this process and its children have had at a look, in MiB."""

    def __init__(self) -> None:
        self.mb = 0.0

    def look(self) -> None:
        children = [child.pid for child in multiprocessing.active_children() if child.pid]
        self.mb = max(self.mb, sum(map(_resident, [os.getpid(), *children])))


def _resident(pid: int) -> float:
    """Memory of its own: pages of files on disk, which the kernel may drop, do not count."""
    try:
        lines = Path(f"/proc/{pid}/status").read_text().splitlines()
    except OSError:
        return 0.0
    return sum(int(line.split()[1]) for line in lines if line.startswith("RssAnon")) / 1024


def _in_a_process(work, *arguments) -> Result:
    """Each side starts with an empty memory."""
    context = multiprocessing.get_context("spawn")
    ours_end, theirs_end = context.Pipe()
    process = context.Process(target=_send, args=(theirs_end, work, arguments))
    process.start()
    theirs_end.close()
    try:
        return ours_end.recv()
    finally:
        process.join()


def _send(pipe, work, arguments) -> None:
    pipe.send(work(*arguments))


def main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("--count", type=int, default=1_000_000)
    parser.add_argument("--sample", type=int, default=100_000)
    parser.add_argument("--cores", type=int, default=os.cpu_count() or 1)
    options = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "rows.jsonl"
        rows.write(path, made(options.count))
        (Path(folder) / "work").mkdir()
        results = [
            _in_a_process(theirs, path, options.sample),
            _in_a_process(ours, path, Path(folder) / "work", options.cores),
        ]
    print(f"{options.cores} cores; rensa {metadata.version('rensa')}, "
          f"datasketch {metadata.version('datasketch')}; threshold {THRESHOLD}")  # fmt: skip
    print(f"{'':12}{'rows':>10}{'kept':>10}{'seconds':>9}{'rows/s':>9}{'peak MiB':>10}")
    for one in results:
        speed = one.rows / one.seconds
        print(f"{one.name:12}{one.rows:10}{one.kept:10}{one.seconds:9.0f}{speed:9.0f}"
              f"{one.peak_mb:10.0f}")  # fmt: skip


if __name__ == "__main__":
    main()
