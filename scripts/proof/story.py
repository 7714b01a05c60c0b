"""What happens in the proof, from the first request to the last verdict.

traffic → the cloud answers, the record keeps
run     → rows, training, evaluation, gate, promotion: an adapter per domain
traffic → the same client, the same proxy process; the adapters answer
run     → with what was said since: better, or refused
damage  → a candidate that learnt shuffled labels is refused
"""

from __future__ import annotations

import asyncio
import itertools
import random
import time
from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path

import msgspec

from proxy.protocol import champions
from scripts.proof import figures
from scripts.proof.client import CLIENTS, Asked, Client
from scripts.proof.cloud import Cloud
from scripts.proof.figures import Measured, Phase, Verdict
from scripts.proof.form import Form
from scripts.proof.place import Place, ProofFailed
from scripts.proof.traffic import Conversation, Talk
from trainer import dataset, gate
from trainer.flywheel import state
from trainer.flywheel.state import Run
from trainer.rows import Row

SETTLED_S = 2.0
"""Seconds after which the record is on disk and a champion in the proxy."""


@dataclass
class Story:
    """One proof under way."""

    form: Form
    place: Place
    cloud: Cloud
    talks: Sequence[Talk]
    base_url: str
    phases: list[Phase] = field(default_factory=list)
    measured: list[Measured] = field(default_factory=list)
    verdicts: list[Verdict] = field(default_factory=list)
    seconds: dict[str, float] = field(default_factory=dict)

    async def tell(self) -> Verdict:
        """All of it; the verdict on the damaged candidate. Raises ProofFailed."""
        form = self.form
        with self._timed("traffic, the cloud answers"):
            # One at a time: the record then has one order, and a machine makes the same adapters of
            # it each time.
            await self._traffic("before", form.taught, at_once=1)
        self._require_share("before", 0.0, 0.0)
        with self._timed("first run"):
            await self._runs()
        home = self._promoted()
        with self._timed("traffic, the adapters answer"):
            await self._traffic("after", form.shown)
        self._require_share("after", 0.5, 1.0, of=home)
        with self._timed("base model"):
            async with asyncio.TaskGroup() as tasks:
                for talk in self.talks:
                    tasks.create_task(self._base(talk.name))
        if form.second:
            with self._timed("second run"):
                await self._runs()
            with self._timed("traffic, after the second run"):
                await self._traffic("after the second run", form.shown // 2)
        with self._timed("damaged candidate"):
            return await self._damaged(home[0])

    # ------------------------------------------------------------ traffic

    async def _traffic(self, name: str, count: int, at_once: int = CLIENTS) -> None:
        """So many conversations of each domain, both domains side by side."""
        began = time.time()
        told = [list(itertools.islice(talk.conversations(), count)) for talk in self.talks]
        async with asyncio.TaskGroup() as tasks:
            held = [
                tasks.create_task(self._hold(talk.name, conversations, at_once))
                for talk, conversations in zip(self.talks, told, strict=True)
            ]
        await asyncio.sleep(SETTLED_S)
        for task in held:
            await self._add_phase(name, task.result(), began)

    async def _add_phase(self, name: str, asked: Sequence[Asked], began: float) -> None:
        """Count what clients got since then (seconds since the epoch)."""
        self._require_no_errors(asked)
        record = self.place.directory / "record"
        usd = await asyncio.to_thread(figures.paid, record, asked[0].domain, began, time.time())
        self.phases.append(figures.phase(name, asked, usd))

    async def _hold(
        self, domain: str, conversations: Iterable[Conversation], at_once: int = CLIENTS
    ) -> list[Asked]:
        known = list(conversations)
        self.cloud.learn(known)
        client = Client(self.base_url, domain)
        try:
            return await client.hold(known, at_once)
        finally:
            await client.close()

    # ------------------------------------------------------------ runs

    async def _runs(self) -> None:
        """`headrace-trainer run` of each domain, side by side, while clients keep asking."""
        async with asyncio.TaskGroup() as tasks:
            for talk in self.talks:
                tasks.create_task(self._run(talk))
        await asyncio.sleep(SETTLED_S)
        for talk in self.talks:
            last = _last(self.place.directory / "runs" / talk.name)
            self.verdicts.append(figures.verdict(last))
            for path in sorted((last.directory / "evaluation").glob("*.json")):
                self.measured.append(figures.measured(talk.name, path))

    async def _run(self, talk: Talk) -> None:
        log, began = f"{talk.name}.log", time.time()
        arguments = ("run", "--domain", talk.name, "--settings", "flywheel.yaml")
        running = asyncio.ensure_future(self.place.trainer(*arguments, log=log))
        asked = []
        while not running.done():
            if self._is_tried(talk.name):
                few = list(itertools.islice(talk.conversations(), 4))
                asked += await self._hold(talk.name, few)
            await asyncio.wait([running], timeout=1.0)
        running.result()
        if asked:
            await asyncio.sleep(SETTLED_S)
            await self._add_phase("canary", asked, began)

    def _is_tried(self, domain: str) -> bool:
        """Whether a candidate is in front of clients."""
        there = champions.read(self.place.directory / "adapters").domains.get(domain)
        return there is not None and there.candidate is not None

    # ------------------------------------------------------------ beside the adapters

    async def _base(self, domain: str) -> None:
        """The base model on the same held-out rows, made to call: left to itself it never does."""
        last = _last(self.place.directory / "runs" / domain)
        out = self.place.directory / "base" / domain
        await self.place.trainer(
            *("evaluate", "--dataset", str(last.directory / "dataset"), "--side", "seen"),
            *("--subject", "base!", "--most", str(self.form.base), "--base-url", self.base_url),
            *("--out", str(out)),
            log=f"{domain}.log",
        )
        for path in out.glob("*.json"):
            self.measured.append(figures.measured(domain, path))

    async def _damaged(self, domain: str) -> Verdict:
        """A candidate trained on the same questions with shuffled answers, before the gate."""
        began, form = time.time(), self.form
        last = _last(self.place.directory / "runs" / domain)
        made, damaged = last.directory / "dataset", self.place.directory / "damaged"
        count = shuffle(made, damaged / "dataset")
        self.place.write("damaged.yaml", form.recipe(domain, form.damaged_steps))
        await self.place.trainer(
            *("train", "--recipe", "damaged.yaml", "--dataset", str(damaged / "dataset")),
            *("--out", str(damaged / "run")),
            log="damaged.log",
        )
        id = max(_bundles(self.place.directory / "adapters", domain), key=_number).name
        await self._asked(id, made, damaged / "reports")
        against = last.directory / "evaluation"
        await self.place.trainer(
            *("gate", "--recipe", f"{domain}.yaml", "--dataset", str(made)),
            *("--bundle", f"adapters/{id}", "--out", str(damaged / "verdict.json")),
            *("--candidate", str(next((damaged / "reports").glob("*.json")))),
            *("--cloud", str(next(against.glob("cloud-*-seen.json")))),
            *("--champion", str(next(against.glob("candidate-*-seen.json")))),
            log="damaged.log",
        )
        found = gate.read(damaged / "verdict.json")
        self.measured.append(figures.measured(domain, next((damaged / "reports").glob("*.json"))))
        if found.decision != "refuse":
            raise ProofFailed(f"the damaged candidate was not refused: {found.sentence}")
        return Verdict(
            domain=domain,
            adapter=id,
            outcome=found.decision,
            reason=found.sentence,
            seconds=time.time() - began,
            rows=count,
        )

    async def _asked(self, id: str, made: Path, out: Path) -> None:
        await self.place.trainer(
            *("evaluate", "--dataset", str(made), "--side", "seen", "--subject", id),
            *("--most", str(self.form.damaged_held_out)),
            *("--base-url", self.base_url, "--out", str(out)),
            log="damaged.log",
        )

    # ------------------------------------------------------------ what must hold

    def _require_no_errors(self, asked: Sequence[Asked]) -> None:
        errors = sorted({one.error for one in asked if one.error})
        if errors:
            raise ProofFailed(f"a client got {', '.join(errors)}; see {self.place.directory}")
        if self.cloud.strange:
            raise ProofFailed(f"the cloud was asked {self.cloud.strange} things it does not know")

    def _require_share(
        self, name: str, least: float, most: float, of: Sequence[str] | None = None
    ) -> None:
        for phase in self.phases:
            if phase.name != name or (of is not None and phase.domain not in of):
                continue
            if not least <= phase.local.share <= most:
                raise ProofFailed(f"{phase.domain}, {name}: {phase.local} were answered locally")

    def _promoted(self) -> list[str]:
        """The domains that came home, one at least. That another was refused is a verdict like any,
        and is shown."""
        found = [verdict.domain for verdict in self.verdicts if verdict.outcome == "promoted"]
        if not found:
            told = (f"{one.adapter}: {one.outcome}. {one.reason}" for one in self.verdicts)
            raise ProofFailed("\n".join(told))
        return found

    @contextmanager
    def _timed(self, name: str) -> Iterator[None]:
        began = time.monotonic()
        print(f"· {name} …", flush=True)
        yield
        self.seconds[name] = round(time.monotonic() - began, 1)
        print(f"  {self.seconds[name]:.0f} s", flush=True)


def _last(runs: Path) -> Run:
    return max(state.runs(runs), key=lambda run: run.manifest.id)


def _bundles(adapters: Path, domain: str) -> list[Path]:
    return [path.parent for path in adapters.glob(f"{domain}-v*/manifest.json")]


def _number(bundle: Path) -> int:
    return int(bundle.name.rpartition("-v")[2])


def shuffle(made: Path, target: Path) -> int:
    """The dataset with each training row's question put to another row's tools and answer; how many
    rows. The labels stay valid by their schemas."""
    whole = dataset.read(made)
    chance = random.Random(0)
    asked = [row.messages for row in whole.train]
    chance.shuffle(asked)
    train: list[Row] = [
        msgspec.structs.replace(row, messages=messages)
        for row, messages in zip(whole.train, asked, strict=True)
    ]
    dataset.write(msgspec.structs.replace(whole, train=train), target)
    return len(train)
