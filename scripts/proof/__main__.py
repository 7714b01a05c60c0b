"""`make proof`, `make proof-small`: the whole loop, with nothing mocked but the cloud.

Ends with 1 where a client got an error, where nothing was answered locally in the end, or where the
damaged candidate was not refused.
"""

from __future__ import annotations

import argparse
import asyncio
import datetime
import logging
import os
import platform
import random
import shutil
import signal
import sys
import tempfile
from pathlib import Path

import msgspec
import structlog
from rich.console import Console

from scripts.proof import page
from scripts.proof.cloud import Cloud
from scripts.proof.figures import Proof
from scripts.proof.form import FULL, SMALL, Form
from scripts.proof.hotels import Hotels
from scripts.proof.place import Place, ProofFailed
from scripts.proof.story import Story
from scripts.proof.tickets import Tickets
from tests.scripted import reachable
from trainer.registry import bundles

MIRRORED = 1.0
"""Share of the local answers that the cloud is asked for, too: the labels of the second run."""


def main() -> int:
    parser = argparse.ArgumentParser(prog="make proof", description=__doc__)
    parser.add_argument("--small", action="store_true", help="the form that runs with every change")
    parser.add_argument("--place", type=Path, help="directory to work in, which is kept")
    parser.add_argument("--results", type=Path, help="directory for the page and its twin in JSON")
    options = parser.parse_args()
    # The record's readers log what is in order, too.
    structlog.configure(wrapper_class=structlog.make_filtering_bound_logger(logging.ERROR))
    form = SMALL if options.small else FULL
    directory = options.place or Path(tempfile.mkdtemp(prefix="headrace-proof-"))
    directory.mkdir(parents=True, exist_ok=True)
    proof: Proof | None = None
    try:
        proof = asyncio.run(prove(form, directory.resolve()))
    except* ProofFailed as failed:
        print(*failed.exceptions, sep="\n", file=sys.stderr)
        print(f"all that was made is kept in {directory}", file=sys.stderr)
    except* asyncio.CancelledError:
        print(f"stopped; all that was made is kept in {directory}", file=sys.stderr)
    if proof is None:
        return 1
    page.show(proof, Console(width=160))
    if options.results:
        _write(proof, form, options.results)
    if not options.place:
        shutil.rmtree(directory)
    return 0


async def prove(form: Form, directory: Path) -> Proof:
    """The proof in this directory; raises ProofFailed."""
    # Who ends the proof ends what it has started, too.
    this = asyncio.current_task()
    assert this is not None
    asyncio.get_running_loop().add_signal_handler(signal.SIGTERM, this.cancel)
    # Two domains train at once, each on a core of its own.
    place = Place(directory, threads=max(1, (os.cpu_count() or 2) // 2))
    cloud = Cloud()
    talks = [Tickets(random.Random(1)), Hotels(random.Random(2))]
    names = [talk.name for talk in talks]
    async with reachable(cloud):
        tools = [(talk.name, [tool.name for tool in talk.tools]) for talk in talks]
        place.routes(cloud.base_url, tools, MIRRORED)
        async with place.serving() as base_url:
            for name in names:
                place.write(f"{name}.yaml", form.recipe(name))
            place.write("flywheel.yaml", form.settings(names, base_url))
            story = Story(form, place, cloud, talks, base_url)
            damaged = await story.tell()
    return Proof(
        form=form.name,
        at=datetime.date.today().isoformat(),
        machine=f"{os.cpu_count()} cores, {platform.machine()}",
        versions=bundles.versions(),
        seconds=story.seconds,
        phases=story.phases,
        measured=story.measured,
        verdicts=story.verdicts,
        damaged=damaged,
        cloud_answers=cloud.answered,
    )


def _write(proof: Proof, form: Form, results: Path) -> None:
    results.mkdir(parents=True, exist_ok=True)
    twin = msgspec.json.format(msgspec.json.encode(proof)) + b"\n"
    (results / f"{proof.at}-proof.json").write_bytes(twin)
    (results / f"{proof.at}-proof.md").write_text(page.markdown(proof, form))


if __name__ == "__main__":
    sys.exit(main())
