from __future__ import annotations

import asyncio
import sys
from collections.abc import AsyncIterator, Callable, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import aiohttp
import msgspec
import pytest
from aiohttp import web
from structlog.testing import capture_logs

pytest.importorskip("gguf", reason="needs the embedded or the train extra")

from proxy.config import parse
from proxy.protocol import adapter, champions
from proxy.protocol.champions import CHAMPIONS, Alias, Candidate, Stage, appoint
from proxy.protocol.exchange import Exchange
from proxy.protocol.segments import read_segment, segments
from proxy.protocol.shadowed import Shadowed
from tests.engines import bundles
from tests.engines.farm import Machine, SlowTgi, SlowVllm, farm
from tests.engines.pooled import QUICK, Pooled, Reply, Told, pooled
from tests.engines.toy import do
from tests.serving import serving

ASKS = (
    "import sys, urllib.request as r;"
    " r.urlopen(sys.argv[1], data=sys.argv[2].encode(), timeout=60).read()"
)
"""What the restart command runs: it asks whoever minds the machines, and waits."""


@dataclass
class Minder:
    """Restarts machines when it is asked to, as a service manager would."""

    machines: Sequence[Machine]
    url: str = ""
    restarted: list[str] = field(default_factory=list)
    breaks: bool = False
    """Whether the new process finds none of its adapters."""

    async def restart(self, request: web.Request) -> web.Response:
        named = {machine.name: machine for machine in self.machines}
        machine = named[request.match_info["name"]]
        listed = (await request.text()).split(",")
        await machine.kill()
        machine.adapters = [] if self.breaks else [item.partition("=")[0] for item in listed]
        await machine.start()
        self.restarted.append(machine.name)
        return web.Response()

    @property
    def settings(self) -> str:
        """For the pool: the command that has it restart a machine."""
        argv = [sys.executable, "-c", ASKS, self.url + "/{name}", "{adapters}"]
        listed = msgspec.json.encode(argv).decode()
        return f"{QUICK}, start_s: 20, restart: {{kind: command, argv: {listed}}}"


@asynccontextmanager
async def minding(machines: Sequence[Machine]) -> AsyncIterator[Minder]:
    """A minder on a free port."""
    minder = Minder(machines)
    app = web.Application()
    app.add_routes([web.post("/{name}", minder.restart)])
    runner = web.AppRunner(app)
    await runner.setup()
    await web.TCPSite(runner, "127.0.0.1", 0).start()
    minder.url = f"http://127.0.0.1:{runner.addresses[0][1]}"
    try:
        yield minder
    finally:
        await runner.cleanup()


class Load:
    """Clients that ask one thing after the other until they are told to stop."""

    def __init__(self, proxy: Pooled, clients: int = 8) -> None:
        self.replies: list[Reply] = []
        self._proxy = proxy
        self._clients = clients
        self._is_over = False

    async def __aenter__(self) -> Load:
        self._asking = [asyncio.ensure_future(self._ask(one)) for one in range(self._clients)]
        return self

    async def __aexit__(self, *_: object) -> None:
        self._is_over = True
        async with asyncio.timeout(30):
            await asyncio.gather(*self._asking)

    async def more(self, count: int) -> None:
        """Wait for so many further replies."""
        goal = len(self.replies) + count
        async with asyncio.timeout(60):
            while len(self.replies) < goal:  # noqa: ASYNC110
                await asyncio.sleep(0.02)

    async def _ask(self, client: int) -> None:
        while not self._is_over:
            self.replies.append(await self._proxy.ask(f"Client {client}", client % 2 == 0))


def check_the_flip(replies: Sequence[Reply], exchanges: Sequence[Exchange]) -> None:
    """Each request answered, by the adapter that its record names; the new one after the flip."""
    recorded = {exchange.id: exchange for exchange in exchanges}
    assert [reply for reply in replies if not reply.is_whole] == []
    assert len(recorded) == len(replies)
    assert all(len(exchange.attempts) == 1 for exchange in exchanges)
    by_adapter: dict[str | None, set[str]] = {"chat-v1": set(), "chat-v2": set()}
    for reply in replies:
        by_adapter[recorded[reply.id].attempts[0].adapter].add(reply.text)
    # The toy's words tell which adapter they are of: the base, or the other one, says others.
    assert by_adapter["chat-v1"] and by_adapter["chat-v2"]
    assert not by_adapter["chat-v1"] & by_adapter["chat-v2"]
    assert all(len(texts) == 8 for texts in by_adapter.values())
    in_order = [exchange.attempts[0].adapter for exchange in exchanges]
    assert in_order == sorted(in_order)


async def test_new_adapter_is_rolled_out_under_load_where_it_can_be_loaded(tmp_path: Path):
    with capture_logs() as logs:
        async with (
            farm(SlowVllm) as machines,
            pooled(tmp_path, "vllm", machines) as proxy,
        ):
            async with Load(proxy) as load:
                await load.more(24)
                proxy.champion("chat-v2")
                await proxy.until(lambda told: is_done(logs))
                await load.more(24)
            held = [sorted(machine.engine.toy.adapters) for machine in machines]
            starts = [machine.starts for machine in machines]

    check_the_flip(load.replies, proxy.recorded())
    assert held == [["chat-v1", "chat-v2"]] * 2
    assert starts == [1, 1]


async def test_new_adapter_is_rolled_out_under_load_where_servers_must_be_restarted(
    tmp_path: Path,
):
    with capture_logs() as logs:
        async with (
            farm(SlowTgi, "chat-v1") as machines,
            minding(machines) as minder,
            pooled(tmp_path, "tgi", machines, pool=minder.settings) as proxy,
            Load(proxy) as load,
        ):
            await load.more(24)
            proxy.champion("chat-v2")
            await proxy.until(lambda told: is_done(logs), within=60)
            await load.more(24)

    check_the_flip(load.replies, proxy.recorded())
    assert minder.restarted == [machine.name for machine in machines]
    assert [machine.adapters for machine in machines] == [["chat-v1", "chat-v2"]] * 2


def is_done(logs: Sequence[dict[str, object]], id: str = "chat-v2") -> bool:
    done = [entry for entry in logs if entry["event"] == "rollout_done"]
    return [id] in [entry["adapters"] for entry in done]


async def test_former_champion_is_let_go_with_the_next_roll_out(tmp_path: Path):
    with capture_logs() as logs:
        async with (
            farm(SlowVllm, machines=1) as (machine,),
            pooled(tmp_path, "vllm", [machine]) as proxy,
        ):
            proxy.champion("chat-v2")
            await proxy.until(lambda told: is_done(logs))
            assert sorted(machine.engine.toy.adapters) == ["chat-v1", "chat-v2"]
            proxy.champion("chat-v3")
            await proxy.until(lambda told: told.of(machine)["adapters"] == ["chat-v2", "chat-v3"])
            await proxy.until(lambda told: "chat-v1" not in machine.engine.toy.adapters)

            assert sorted(machine.engine.toy.adapters) == ["chat-v2", "chat-v3"]


async def test_going_back_to_the_former_champion_takes_no_restart(tmp_path: Path):
    with capture_logs() as logs:
        async with (
            farm(SlowTgi, "chat-v1", machines=1) as machines,
            minding(machines) as minder,
            pooled(tmp_path, "tgi", machines, pool=minder.settings) as proxy,
        ):
            proxy.champion("chat-v2")
            await proxy.until(lambda told: is_done(logs))
            logs.clear()
            appoint(proxy.adapters, "chat", "chat-v1", "test")
            await proxy.until(lambda told: is_done(logs, "chat-v1"))

    assert len(minder.restarted) == 1


@pytest.mark.parametrize("name", ["tgi", "vllm"])
async def test_broken_bundle_keeps_the_old_champion_and_is_told(tmp_path: Path, name: str):
    kind = {"tgi": SlowTgi, "vllm": SlowVllm}[name]
    async with (
        farm(kind, "chat-v1", machines=1) as machines,
        pooled(tmp_path, name, machines) as proxy,
    ):
        bundles.write(proxy.adapters, "chat-v2")
        (proxy.adapters / "chat-v2" / adapter.WEIGHTS).write_bytes(b"torn")
        with capture_logs() as logs:
            appoint(proxy.adapters, "chat", "chat-v2", "test")
            told = await proxy.until(lambda told: told.rollouts)
            reply = await proxy.ask(do("Hello."))

        assert "is not the file that its manifest names" in told.rollouts["local"]
        assert [e["event"] for e in logs if e["log_level"] == "error"] == ["rollout_failed"]
        assert (reply.is_whole, told.ready) == (True, True)

        (proxy.adapters / "chat-v2" / adapter.WEIGHTS).write_bytes(b"chat-v2")
        appoint(proxy.adapters, "chat", "chat-v1", "test")
        await proxy.until(lambda told: not told.rollouts)


async def test_champion_whose_canary_fails_is_not_put_in_place(tmp_path: Path):
    async with (
        farm(SlowVllm, machines=1) as (machine,),
        pooled(tmp_path, "vllm", [machine]) as proxy,
    ):
        proxy.champion("chat-v2", answers_as="chat-v9")
        told = await proxy.until(lambda told: told.rollouts)
        reply = await proxy.ask("Hello.")

    assert "does not serve chat-v2: its answer is not the trained one's" in told.rollouts["local"]
    assert told.of(machine)["adapters"] == ["chat-v1"]
    assert reply.is_whole
    assert {e.attempts[0].adapter for e in proxy.recorded()} == {"chat-v1"}


async def test_restart_that_loses_the_adapter_stops_before_the_next_server(tmp_path: Path):
    async with (
        farm(SlowTgi, "chat-v1") as (one, two),
        minding([one, two]) as minder,
        pooled(tmp_path, "tgi", [one, two], pool=minder.settings) as proxy,
    ):
        minder.breaks = True
        proxy.champion("chat-v2")
        told = await proxy.until(lambda told: told.rollouts)
        replies = [await proxy.ask(do("Hello.")) for _ in range(4)]

    assert minder.restarted == [one.name]
    assert "the base model answers in its place" in told.rollouts["local"]
    assert all(reply.is_whole for reply in replies)


async def test_last_server_that_is_well_is_not_restarted_until_another_is(tmp_path: Path):
    async with (
        farm(SlowTgi, "chat-v1") as (one, two),
        minding([one, two]) as minder,
        pooled(tmp_path, "tgi", [one, two], pool=minder.settings) as proxy,
    ):
        await two.kill()
        await proxy.until(lambda told: told.of(two)["state"] == "down")
        proxy.champion("chat-v2")
        told = await proxy.until(lambda told: told.rollouts)
        assert told.rollouts["local"] == f"no other server could take over from {one.name}"
        assert minder.restarted == []

        await two.start()
        await proxy.until(lambda told: not told.rollouts)

    assert minder.restarted == [one.name, two.name]


async def test_operator_is_told_the_line_and_the_flip_follows_the_restart(tmp_path: Path):
    with capture_logs() as logs:
        async with (
            farm(SlowTgi, "chat-v1", machines=1) as (machine,),
            pooled(tmp_path, "tgi", [machine]) as proxy,
        ):
            proxy.champion("chat-v2")
            told = await proxy.until(lambda told: told.rollouts)
            before = await proxy.ask("Hello.")
            machine.adapters = ["chat-v1", "chat-v2"]
            await machine.kill()
            await proxy.until(lambda told: told.of(machine)["state"] == "down")
            await machine.start()
            await proxy.until(lambda told: not told.rollouts and is_done(logs))
            after = await proxy.ask("Hello.")

    at = proxy.adapters.absolute()
    line = f"LORA_ADAPTERS=chat-v1={at / 'chat-v1'},chat-v2={at / 'chat-v2'}"
    assert told.rollouts["local"] == f"restart {machine.name} with {line}"
    assert next(e["reason"] for e in logs if e["event"] == "rollout_waits").endswith(line)
    recorded = {exchange.id: exchange.attempts[0].adapter for exchange in proxy.recorded()}
    assert (recorded[before.id], recorded[after.id]) == ("chat-v1", "chat-v2")


async def test_servers_that_were_started_with_other_adapters_are_restarted_at_the_start(
    tmp_path: Path,
):
    async with (
        farm(SlowTgi, "chat-v0") as machines,
        minding(machines) as minder,
        pooled(tmp_path, "tgi", machines, pool=minder.settings) as proxy,
    ):
        for machine in machines:
            await proxy.until(lambda told, m=machine: told.of(m)["adapters"] == ["chat-v1"])
        reply = await proxy.ask(do("Hello."))

    assert minder.restarted == [machine.name for machine in machines]
    assert reply.text == "Hello."


async def test_champion_file_that_vanishes_changes_nothing(tmp_path: Path):
    async with (
        farm(SlowVllm, machines=1) as machines,
        pooled(tmp_path, "vllm", machines) as proxy,
    ):
        (proxy.adapters / CHAMPIONS).unlink()
        proxy.champion("chat-v2")
        await proxy.until(lambda told: "chat-v2" in str(told.of(machines[0])["adapters"]))
        (proxy.adapters / CHAMPIONS).unlink()
        await asyncio.sleep(1.5)
        reply = await proxy.ask("Hello.")

    recorded = {exchange.id: exchange.attempts[0].adapter for exchange in proxy.recorded()}
    assert recorded[reply.id] == "chat-v2"


async def test_new_champion_of_the_engine_in_the_proxy_is_loaded_and_put_in_place(tmp_path: Path):
    pytest.importorskip("openvino_genai", reason="needs the embedded extra")
    shipped = Path(__file__).parents[1] / "adapters"
    (tmp_path / "api-v1").symlink_to(shipped / "api-v1")
    (tmp_path / "champions.json").write_text("{}")
    text = f"""
version: 1
models: [gpt-4o]
backends: {{local: {{kind: embedded, base_model: {bundles.MODEL}, adapters: ., preload: false}}}}
domains: {{chat: {{plan: [local]}}}}
defaults: {{tools: chat, chat: chat}}
record: {{directory: record}}
"""
    with capture_logs() as logs:
        async with (
            serving(parse(text, tmp_path, {})) as url,
            aiohttp.ClientSession() as session,
        ):
            proxy = Pooled(url, tmp_path, session)
            appoint(tmp_path, "chat", "api-v1", "test")
            await proxy.until(lambda told: is_done(logs, "api-v1"), within=120)
            reply = await proxy.ask("Hello.")

    assert reply.is_whole
    assert [exchange.attempts[0].adapter for exchange in proxy.recorded()] == ["api-v1"]


async def test_bundle_that_comes_while_the_proxy_runs_is_known(tmp_path: Path):
    async with (
        farm(SlowVllm, machines=1) as machines,
        pooled(tmp_path, "vllm", machines) as proxy,
    ):
        before = await proxy.ask("Hello.", pinned="chat-v7")
        bundles.write(proxy.adapters, "chat-v7")
        async with asyncio.timeout(20):
            while (  # noqa: ASYNC110  # it is over HTTP
                after := await proxy.ask("Hello.", pinned="chat-v7")
            ).status == 400:
                await asyncio.sleep(0.05)

    # The servers have not loaded it, as nobody has promoted it.
    assert (before.status, after.status) == (400, 502)


# ---------------------------------------------------------------- canaries


CANARY = "canary: {adapter: chat-v2, share: 0.5}"


async def test_canary_answers_its_share_beside_the_champion(tmp_path: Path):
    async with (
        farm(SlowVllm, machines=1) as (machine,),
        pooled(tmp_path, "vllm", [machine], policy=CANARY) as proxy,
    ):
        missing = await proxy.until(lambda told: told.rollouts)
        bundles.write(proxy.adapters, "chat-v2")
        await proxy.until(lambda told: not told.rollouts)
        replies = [await proxy.ask(f"Client {number}") for number in range(24)]

    assert "no sound bundle 'chat-v2'" in missing.rollouts["canary of chat"]
    assert all(reply.is_whole for reply in replies)
    sides = {(one.assigned, one.attempts[0].adapter) for one in proxy.recorded()}
    assert sides == {("canary:chat-v2", "chat-v2"), ("champion:chat-v1", "chat-v1")}


async def test_canary_that_does_not_prove_itself_is_not_used_and_is_told(tmp_path: Path):
    bundles.write(tmp_path / "adapters", "chat-v2", "chat-v9")
    with capture_logs() as logs:
        async with (
            farm(SlowVllm, machines=1) as (machine,),
            pooled(tmp_path, "vllm", [machine], policy=CANARY) as proxy,
        ):
            told = await proxy.until(lambda told: told.rollouts)
            replies = [await proxy.ask(f"Client {number}") for number in range(8)]

    assert "does not serve chat-v2" in told.rollouts["canary of chat"]
    assert told.ready and all(reply.is_whole for reply in replies)
    assert {(e.assigned, e.attempts[0].adapter) for e in proxy.recorded()} == {("", "chat-v1")}
    reasons = [e["reason"] for e in logs if e["event"] == "canary_not_used"]
    assert len(reasons) == len(set(reasons)) >= 1


async def test_canary_stays_beside_a_new_champion_and_ends_when_it_is_one(tmp_path: Path):
    bundles.write(tmp_path / "adapters", "chat-v2")
    with capture_logs() as logs:
        async with (
            farm(SlowVllm, machines=1) as (machine,),
            pooled(tmp_path, "vllm", [machine], policy=CANARY) as proxy,
        ):
            proxy.champion("chat-v3")
            await proxy.until(lambda told: is_done(logs, "chat-v3"))
            await proxy.until(lambda told: [e["event"] for e in logs].count("canary_admitted") == 2)
            replies = [await proxy.ask(f"Client {number}") for number in range(24)]
            appoint(proxy.adapters, "chat", "chat-v2", "test")
            told = await proxy.until(lambda told: told.rollouts)

    assert all(reply.is_whole for reply in replies)
    sides = {(one.assigned, one.attempts[0].adapter) for one in proxy.recorded()}
    assert sides == {("canary:chat-v2", "chat-v2"), ("champion:chat-v3", "chat-v3")}
    assert told.rollouts["canary of chat"].startswith("it is the champion")


# ---------------------------------------------------------------- candidates of the champion file


def alias(
    share: float, stage: Stage = "canary", champion: str = "chat-v1", adapter: str = "chat-v2"
) -> Alias:
    """A candidate beside the champion; in `full` it is the champion, and the former one waits."""
    candidate = Candidate(adapter=adapter, share=share, stage=stage)
    if stage == "full":
        return Alias(champion=adapter, previous=champion, candidate=candidate)
    return Alias(champion=champion, candidate=candidate)


def put(proxy: Pooled, alias: Alias) -> None:
    """Have the champion file say this of `chat`."""
    revision = champions.read(proxy.adapters).revision
    champions.change(proxy.adapters, "chat", alias, revision, "test")


def proven(share: float) -> Callable[[Told], bool]:
    """Whether /ready tells of a candidate with this share that may answer."""
    wanted = {"adapter": "chat-v2", "state": "proven", "share": share}
    return lambda told: wanted.items() <= told.candidates.get("chat", {}).items()


def answered_by(proxy: Pooled, replies: Sequence[Reply]) -> set[str | None]:
    adapters = {one.id: one.attempts[0].adapter for one in proxy.recorded()}
    return {adapters[reply.id] for reply in replies}


async def test_candidate_is_loaded_then_gets_the_share_that_the_file_says(tmp_path: Path):
    async with (
        farm(SlowVllm, machines=2) as machines,
        pooled(tmp_path, "vllm", machines) as proxy,
    ):
        bundles.write(proxy.adapters, "chat-v2")
        put(proxy, alias(0.0, "loading"))
        await proxy.until(proven(0.0), within=60)
        held = [sorted(machine.engine.toy.adapters) for machine in machines]
        loading = [await proxy.ask(f"Client {number}") for number in range(8)]
        put(proxy, alias(0.5))
        await proxy.until(proven(0.5), within=60)
        half = [await proxy.ask(f"Client {number}") for number in range(24)]
        put(proxy, alias(1.0))
        await proxy.until(proven(1.0), within=60)
        whole = [await proxy.ask(f"Client {number}") for number in range(8)]

    assert held == [["chat-v1", "chat-v2"]] * 2
    assert all(reply.is_whole for reply in (*loading, *half, *whole))
    assert answered_by(proxy, loading) == {"chat-v1"}
    assert answered_by(proxy, half) == {"chat-v1", "chat-v2"}
    assert answered_by(proxy, whole) == {"chat-v2"}
    sides = {one.assigned for one in proxy.recorded()}
    assert sides == {"", "champion:chat-v1", "canary:chat-v2"}


async def test_candidate_that_is_taken_back_answers_nobody_any_more(tmp_path: Path):
    with capture_logs() as logs:
        async with (
            farm(SlowVllm, machines=1) as machines,
            pooled(tmp_path, "vllm", machines) as proxy,
        ):
            bundles.write(proxy.adapters, "chat-v2")
            put(proxy, alias(1.0))
            await proxy.until(proven(1.0), within=60)
            before = await proxy.ask("Hello.")
            put(proxy, Alias(champion="chat-v1"))
            await proxy.until(lambda told: not told.candidates, within=60)
            after = await proxy.ask("Hello.")

    assert "canary_withdrawn" in [entry["event"] for entry in logs]
    assert answered_by(proxy, [before]) == {"chat-v2"}
    assert answered_by(proxy, [after]) == {"chat-v1"}


async def test_new_champion_that_is_watched_goes_back_without_loading_anything(tmp_path: Path):
    with capture_logs() as logs:
        async with (
            farm(SlowVllm, machines=1) as (machine,),
            pooled(tmp_path, "vllm", [machine]) as proxy,
        ):
            bundles.write(proxy.adapters, "chat-v2")
            put(proxy, alias(0.5))
            await proxy.until(proven(0.5), within=60)
            put(proxy, alias(1.0, "full"))
            await proxy.until(lambda told: is_done(logs))
            # Two more roll-outs: without being kept, the former champion would be unloaded.
            for _ in range(2):
                logs.clear()
                champions.change(
                    proxy.adapters,
                    "other",
                    Alias(champion="chat-v2"),
                    champions.read(proxy.adapters).revision,
                    "test",
                )
                await proxy.until(lambda told: is_done(logs))
            loads = list(machine.engine.loads)
            put(proxy, Alias(champion="chat-v1"))
            await proxy.until(lambda told: is_done(logs, "chat-v1"))
            reply = await proxy.ask("Hello.")

    assert answered_by(proxy, [reply]) == {"chat-v1"}
    assert machine.engine.loads == loads


async def test_candidate_without_a_bundle_is_waited_for(tmp_path: Path):
    async with (
        farm(SlowVllm, machines=1) as machines,
        pooled(tmp_path, "vllm", machines) as proxy,
    ):
        put(proxy, alias(0.5))
        told = await proxy.until(lambda told: told.candidates, within=60)
        bundles.write(proxy.adapters, "chat-v2")
        await proxy.until(proven(0.5), within=60)

    assert told.candidates["chat"]["state"] == "loading"
    assert "no sound bundle 'chat-v2'" in str(told.candidates["chat"]["reason"])


async def test_candidate_that_does_not_prove_itself_gets_no_share(tmp_path: Path):
    async with (
        farm(SlowVllm, machines=1) as machines,
        pooled(tmp_path, "vllm", machines) as proxy,
    ):
        bundles.write(proxy.adapters, "chat-v2", answers_as="chat-v9")
        put(proxy, alias(1.0))
        told = await proxy.until(lambda told: told.candidates, within=60)
        replies = [await proxy.ask(f"Client {number}") for number in range(4)]

    assert "does not serve chat-v2" in str(told.candidates["chat"]["reason"])
    assert answered_by(proxy, replies) == {"chat-v1"}


async def test_candidate_is_taken_back_while_a_server_is_being_restarted(tmp_path: Path):
    """Nobody waits for what the other domain's roll-out waits for."""
    async with (
        farm(SlowTgi, "chat-v1") as machines,
        pooled(tmp_path, "tgi", machines) as proxy,
    ):
        for id in ("chat-v2", "chat-v3"):
            bundles.write(proxy.adapters, id)
        for machine in machines:
            machine.adapters = ["chat-v1", "chat-v2"]
            await machine.kill()
            await machine.start()
        put(proxy, alias(1.0))
        await proxy.until(proven(1.0), within=60)
        # The next champion needs servers that are started with it, which nobody does.
        put(proxy, alias(1.0, champion="chat-v3"))
        await proxy.until(lambda told: "local" in told.rollouts)
        put(proxy, Alias(champion="chat-v3"))
        await proxy.until(lambda told: not told.candidates, within=60)
        reply = await proxy.ask("Hello.")

    assert answered_by(proxy, [reply]) == {"chat-v1"}


def lane(told: Told) -> dict[str, Any]:
    """What /ready says of the candidate's shadows; {} where it has none."""
    return (told.candidate_shadows or {}).get("chat", {})


def is_settled(told: Told) -> bool:
    """Whether some of them are there, and none is under way."""
    seen = lane(told)
    done = [*seen.get("outcomes", {}).values(), *seen.get("dropped", {}).values()]
    return bool(seen) and sum(done) == seen["sampled"] > 0


async def test_candidate_in_its_shadow_stage_is_heard_by_no_client(tmp_path: Path):
    async with (
        farm(SlowVllm, machines=1) as machines,
        pooled(tmp_path, "vllm", machines) as proxy,
    ):
        bundles.write(proxy.adapters, "chat-v2")
        put(proxy, alias(0.5, "shadow"))
        await proxy.until(proven(0.5), within=60)
        replies = [await proxy.ask(f"Client {number}") for number in range(16)]
        pinned = await proxy.ask("Client 1", pinned="chat-v1")
        asked = lane(await proxy.until(is_settled))
        put(proxy, alias(0.0, "loading"))
        await proxy.until(proven(0.0), within=60)
        await proxy.ask("Client 1")
        after = lane(await proxy.told())

    exchanges = {one.id: one for one in proxy.recorded()}
    assert all(reply.is_whole for reply in (*replies, pinned))
    assert {(one.assigned, one.attempts[0].adapter) for one in exchanges.values()} == {
        ("", "chat-v1")
    }
    records = (one for path in segments(tmp_path / "record") for one in read_segment(path))
    shadows = [one for one in records if isinstance(one, Shadowed)]
    assert {(one.attempt.adapter, one.attempt.kind) for one in shadows} == {("chat-v2", "shadow")}
    assert 0 < len(shadows) < 16
    assert {one.exchange for one in shadows} < exchanges.keys()
    assert asked["outcomes"] == {"completed": len(shadows)}
    assert after["sampled"] == asked["sampled"]
