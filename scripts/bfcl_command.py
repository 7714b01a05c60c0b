"""`make test-bfcl`: the leaderboard's own command asks a running Headrace, and scores it as we do.

`bfcl generate` and `bfcl evaluate` run in an environment of their own (`.venv-bfcl`) with Headrace
as the OpenAI endpoint; then the very answers that they kept are judged by `trainer.scorers.bfcl`.
Exit 1 where the two scores differ.
"""

from __future__ import annotations

import argparse
import json
import os
import subprocess
import sys
import tempfile
from pathlib import Path

import msgspec

sys.path.insert(0, str(Path(__file__).parent))

from demo import ROOT, server

from proxy.protocol.openai import FunctionCall
from trainer.evaluate import balanced
from trainer.recipe.sources import BfclSettings
from trainer.rows import Row
from trainer.scorers import bfcl
from trainer.scorers.toolcall import right_calls
from trainer.sources import rows as read_rows
from trainer.sources.base import Skips

MODEL = "openbmb/MiniCPM-SALA-FC"
"""Of the models that the command knows, one that it asks by chat completions with tools. The name
is all that is used of it."""


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--categories", default="live_relevance,live_parallel,live_simple")
    parser.add_argument("--bfcl", type=Path, default=ROOT / ".venv-bfcl" / "bin" / "bfcl")
    parser.add_argument("--most", type=int, default=0, help="questions of a category; 0: all")
    options = parser.parse_args()
    categories = options.categories.split(",")
    with tempfile.TemporaryDirectory() as scratch:
        root = Path(scratch)
        changes = {"models: [": f"models: [{MODEL}, ", "preload: true ": "preload: false "}
        with server(root, changes) as base_url:
            _run(options, root, base_url, categories)
        scores = [_compared(root, category) for category in categories]
    for category, (theirs, ours, count) in zip(categories, scores, strict=True):
        print(f"{category}: bfcl {theirs} of {count}, Headrace {ours} of {count}")
    return int(any(theirs != ours for theirs, ours, _ in scores))


def _run(options: argparse.Namespace, root: Path, base_url: str, categories: list[str]) -> None:
    env = os.environ | {
        "BFCL_PROJECT_ROOT": str(root),
        "OPENAI_BASE_URL": base_url,
        "OPENAI_API_KEY": "none",
    }
    which = ["--test-category", ",".join(categories)]
    partial = []
    if options.most:
        ids = {
            category: [
                r.source.removeprefix("bfcl:") for r in balanced(_rows(category), options.most)
            ]
            for category in categories
        }
        (root / "test_case_ids_to_generate.json").write_text(json.dumps(ids))
        generate, partial = ["--run-ids"], ["--partial-eval"]
    else:
        generate = which
    command = [str(options.bfcl), "generate", "--model", MODEL, "--num-threads", "4", *generate]
    subprocess.run(command, env=env, check=True)
    command = [str(options.bfcl), "evaluate", "--model", MODEL, *which, *partial]
    subprocess.run(command, env=env, check=True)


def _rows(category: str) -> list[Row]:
    return list(read_rows([BfclSettings(categories=[category])], Skips()))


# ------------------------------------------------------------------ the scores


def _compared(root: Path, category: str) -> tuple[int, int, int]:
    """(right by the command's score, right by ours, questions)."""
    (score,) = (root / "score").rglob(f"BFCL_v4_{category}_score.json")
    said = json.loads(score.read_text().splitlines()[0])
    (answers,) = (root / "result").rglob(f"BFCL_v4_{category}_result.json")
    given = [json.loads(line) for line in answers.read_text().splitlines()]
    rows = {row.source.removeprefix("bfcl:"): row for row in _rows(category)}
    right = sum(_is_right(rows[one["id"]], one["result"], category) for one in given)
    return said["correct_count"], right, said["total_count"]


def _is_right(row: Row, result: object, category: str) -> bool:
    """By our rules. Where the command kept no list, no call was made: a text, or an error."""
    calls = [
        FunctionCall(name, arguments)
        for one in (result if isinstance(result, list) else [])
        for name, arguments in one.items()
    ]
    if "relevance" in category:
        called = bool(calls) and all(map(_decodes, calls))
        return called != ("irrelevance" in category)
    return bfcl.fault(row.functions, calls, right_calls(row)) is None


def _decodes(call: FunctionCall) -> bool:
    try:
        msgspec.json.decode(call.arguments)
    except msgspec.DecodeError:
        return False
    return True


if __name__ == "__main__":
    sys.exit(main())
