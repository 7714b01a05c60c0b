from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Sequence
from contextlib import AsyncExitStack, asynccontextmanager
from pathlib import Path

import pytest
from structlog.testing import capture_logs

pytest.importorskip("gguf", reason="needs the embedded or the train extra")

from proxy.backends.addresses import Addresses, Resolve
from proxy.backends.http import Session
from proxy.backends.pool_settings import PoolSettings
from proxy.backends.replicas import Replicas
from proxy.backends.vllm.dialect import Vllm
from proxy.errors import (
    BackendOverloaded,
    BackendUnavailable,
    BadRequest,
    InvalidAnswer,
    StallTimeout,
)
from proxy.protocol.adapter import Adapter
from tests.engines import bundles
from tests.engines.farm import Machine, SlowTgi, SlowVllm, farm
from tests.engines.pooled import QUICK, RENEWED, Pooled, Reply, pooled
from tests.engines.toy import do
from tests.scraping import scraped, total

KINDS = pytest.mark.parametrize(
    ("name", "kind"), [("tgi", SlowTgi), ("vllm", SlowVllm)], ids=["tgi", "vllm"]
)
SAYINGS = [f"This is answer {number}, " + "and so on " * 10 + "." for number in range(50)]


async def all_asked(machines: Sequence[Machine], count: int) -> None:
    """Wait until the machines work on so many requests."""
    async with asyncio.timeout(20):
        while sum(in_flight(machine) for machine in machines) < count:  # noqa: ASYNC110
            await asyncio.sleep(0.01)


def in_flight(machine: Machine) -> int:
    streamed = [body for body in machine.engine.bodies if asks_for_text(body)]
    return len(streamed)


def asks_for_text(body: dict[str, object]) -> bool:
    """Whether it is a client's: canaries are not streamed."""
    return "<do>" in str(body) or body.get("stream") is True


@KINDS
async def test_kill_of_a_replica_under_load_ends_each_request_cleanly_and_once(
    tmp_path: Path, name: str, kind: type
):
    async with (
        farm(kind, "chat-v1") as (one, two),
        pooled(tmp_path, name, [one, two]) as proxy,
        asyncio.timeout(60),
        asyncio.TaskGroup() as tasks,
    ):
        asking = [
            tasks.create_task(proxy.ask(do(saying), stream=number % 2 == 0))
            for number, saying in enumerate(SAYINGS)
        ]
        await all_asked([one, two], 50)
        assert in_flight(one) > 10
        assert in_flight(two) > 10

        await one.kill()
        replies = [await task for task in asking]

        whole = [reply.is_whole for reply in replies]
        assert [reply.text for reply in replies if reply.is_whole] == [
            saying for saying, is_whole in zip(SAYINGS, whole, strict=True) if is_whole
        ]
        assert sum(whole) >= in_flight(two) > 10
        broken = [reply for reply in replies if not reply.is_whole]
        assert len(broken) > 10
        assert all(is_clean(reply) for reply in broken)

        await proxy.until(lambda told: told.of(one)["state"] == "down")
        await one.start()
        await proxy.until(lambda told: told.of(one)["adapters"] == ["chat-v1"])
        again = await asyncio.gather(*(proxy.ask(do(saying)) for saying in SAYINGS[:20]))
        assert [reply.text for reply in again] == SAYINGS[:20]
        assert in_flight(one) > 0


def is_clean(reply: Reply) -> bool:
    """An error as OpenAI writes one, and nothing that looks like an end."""
    code = reply.error["code"] if isinstance(reply.error, dict) else None
    return code == "backend_unavailable" and b"[DONE]" not in reply.content


@KINDS
async def test_adapter_that_a_replica_does_not_have_is_never_asked_of_it(
    tmp_path: Path, name: str, kind: type
):
    """vLLM is given it; TGI, which would answer as the base model, is left out and told."""
    async with farm(kind, "chat-v1") as (one, two):
        two.adapters = []
        await two.kill()
        await two.start()
        with capture_logs() as logs:
            async with pooled(tmp_path, name, [one, two]) as proxy:
                replies = await asyncio.gather(*(proxy.ask(do("Hello.")) for _ in range(6)))
                told = await proxy.told()

    assert [reply.text for reply in replies] == ["Hello."] * 6
    if name == "vllm":
        assert told.of(two)["adapters"] == ["chat-v1"]
        return
    assert in_flight(two) == 0
    assert told.of(one)["refused"] == {}
    assert "does not have the adapter" in str(told.of(two)["refused"])
    refused = [entry for entry in logs if entry["event"] == "adapter_refused"]
    assert {entry["replica"] for entry in refused} == {two.name}


async def test_replica_that_was_restarted_without_the_adapter_is_noticed(tmp_path: Path):
    async with (
        farm(SlowTgi, "chat-v1", machines=1) as (machine,),
        pooled(tmp_path, "tgi", [machine]) as proxy,
    ):
        machine.adapters = []
        await machine.kill()
        await proxy.until(lambda told: told.of(machine)["state"] == "down")
        await machine.start()
        await proxy.until(lambda told: told.of(machine)["refused"])

        refused = await proxy.ask(do("Hello."))
        assert (refused.status, is_clean(refused)) == (502, True)


async def test_vllm_that_was_restarted_is_given_its_adapters_again(tmp_path: Path):
    async with (
        farm(SlowVllm, machines=1) as (machine,),
        pooled(tmp_path, "vllm", [machine]) as proxy,
    ):
        await machine.kill()
        await proxy.until(lambda told: told.of(machine)["state"] == "down")
        await machine.start()
        await proxy.until(lambda told: told.of(machine)["adapters"] == ["chat-v1"])

        assert (await proxy.ask(do("Hello."))).text == "Hello."


@KINDS
async def test_restart_too_short_for_a_health_check_is_noticed(
    tmp_path: Path, name: str, kind: type
):
    """By its list of models, or, where the engine has none, by the next canary."""
    async with (
        farm(kind, "chat-v1", machines=1) as (machine,),
        pooled(tmp_path, name, [machine], pool=RENEWED) as proxy,
    ):
        with capture_logs() as logs:
            machine.engine.toy.adapters.clear()
            noticed = {"vllm": "replica_restarted", "tgi": "adapter_refused"}[name]
            async with asyncio.timeout(20):
                while noticed not in {entry["event"] for entry in logs}:  # noqa: ASYNC110
                    await asyncio.sleep(0.02)

        machine.engine.toy.adapters.update(bundles.toy("chat-v1").adapters)
        await proxy.until(lambda told: told.of(machine)["adapters"] == ["chat-v1"])
        assert (await proxy.ask(do("Hello."))).text == "Hello."


async def test_sick_replica_is_passed_over_until_it_is_well(tmp_path: Path):
    async with (
        farm(SlowTgi, "chat-v1") as (one, two),
        pooled(tmp_path, "tgi", [one, two]) as proxy,
    ):
        one.engine.is_sick = True
        await proxy.until(lambda told: told.of(one)["state"] == "down")
        replies = [await proxy.ask(do("Hello.")) for _ in range(4)]
        assert (in_flight(one), in_flight(two)) == (0, 4)

        one.engine.is_sick = False
        await proxy.until(lambda told: told.of(one)["state"] == "up" and told.of(one)["adapters"])
        await asyncio.gather(*(proxy.ask(do(saying)) for saying in SAYINGS[:8]))

    assert all(reply.is_whole for reply in replies)
    assert in_flight(one) > 0


async def test_request_that_waits_too_long_for_a_place_is_told_to_come_back(tmp_path: Path):
    pool = QUICK.replace("queue_s: 5", "queue_s: 0.1")
    async with (
        farm(SlowTgi, "chat-v1", machines=1) as (machine,),
        pooled(tmp_path, "tgi", [machine], pool=pool, more=", max_in_flight: 1") as proxy,
        asyncio.TaskGroup() as tasks,
    ):
        first = tasks.create_task(proxy.ask(do(SAYINGS[0])))
        await all_asked([machine], 1)

        second = await proxy.ask(do("Hello."))

        assert second.status == 503
        assert (await first).text == SAYINGS[0]
        assert (await proxy.ask(do("Hello."))).text == "Hello."


async def test_those_who_wait_are_served_in_turn_and_none_is_lost(tmp_path: Path):
    async with (
        farm(SlowTgi, "chat-v1") as machines,
        pooled(tmp_path, "tgi", machines, more=", max_in_flight: 2") as proxy,
    ):
        replies = await asyncio.gather(*(proxy.ask(do(f"Answer {n}.")) for n in range(30)))

    assert [reply.text for reply in replies] == [f"Answer {n}." for n in range(30)]


async def test_record_and_metrics_name_the_server_and_how_long_was_waited(tmp_path: Path):
    async with (
        farm(SlowTgi, "chat-v1") as machines,
        pooled(tmp_path, "tgi", machines, more=", max_in_flight: 1") as proxy,
    ):
        await asyncio.gather(*(proxy.ask(do(SAYINGS[n])) for n in range(3)))
        samples = await scraped(proxy.url, requests=3)
    attempts = [attempt for exchange in proxy.recorded() for attempt in exchange.attempts]

    names = {machine.name for machine in machines}
    assert {attempt.replica for attempt in attempts} == names
    at_once, also, waited = sorted(attempt.queued_s for attempt in attempts)
    first_answer = min(attempt.total_s for attempt in attempts)
    assert at_once <= also < first_answer / 2 < waited
    queued = "headrace_queued_seconds_count"
    assert total(samples, queued, backend="local", adapter="chat-v1") == 3
    up = [total(samples, "headrace_replica_state", replica=one, state="up") for one in names]
    assert up == [1, 1]
    info = {"backend": "local", "domain": "chat", "adapter": "chat-v1"}
    assert total(samples, "headrace_adapter_info", **info) == 1


async def test_client_that_leaves_gives_its_place_back(tmp_path: Path):
    async with (
        farm(SlowTgi, "chat-v1", machines=1) as (machine,),
        pooled(tmp_path, "tgi", [machine], more=", max_in_flight: 1") as proxy,
    ):
        for _ in range(5):
            await leave(proxy, machine)

        told = await proxy.until(lambda told: told.of(machine)["in_flight"] == 0)
        assert told.of(machine)["state"] == "up"
        assert (await proxy.ask(do("Hello."))).text == "Hello."


async def leave(proxy: Pooled, machine: Machine) -> None:
    """Ask, and hang up in the middle of the answer."""
    asked = in_flight(machine)
    task = asyncio.ensure_future(proxy.ask(do(SAYINGS[0]), stream=True))
    await all_asked([machine], asked + 1)
    task.cancel()
    await asyncio.gather(task, return_exceptions=True)


# ---------------------------------------------------------------- the pool by itself


class Names:
    """What the name of the servers resolves to, as a test has it."""

    def __init__(self, *addresses: str) -> None:
        self.addresses = list(addresses)

    async def __call__(self, host: str, port: int) -> list[str]:
        return self.addresses


@asynccontextmanager
async def watched(
    url: str, resolve: Resolve, *adapters: Adapter, max_in_flight: int = 4, **settings: float
) -> AsyncIterator[Replicas]:
    """The pool of a vLLM server or more, checked once."""
    dialect = Vllm(base="base", adapters_there="/adapters", end=2)
    quick = {"check_s": 0.05, "resolve_s": 0.05, "queue_s": 5} | settings
    async with Session(1) as session, asyncio.TaskGroup() as tasks:
        pool = Replicas(
            "local",
            PoolSettings(**quick),
            max_in_flight=max_in_flight,
            addresses=Addresses([url], resolve),
            dialect=dialect,
            session=session,
            decode=lambda ids: "",
        )
        pool.want(adapters)
        watching = tasks.create_task(pool.run())
        await pool.settled(5)
        yield pool
        watching.cancel()
        await pool.aclose()


async def test_server_that_leaves_the_name_gets_nothing_new_and_ends_what_it_has():
    async with farm(SlowVllm, machines=1) as (one,):
        names = Names("127.0.0.1", "127.0.0.2")
        two = Machine(SlowVllm, [], port=one.port, host="127.0.0.2")
        await two.start()
        async with watched(f"http://vllm:{one.port}", names) as pool, AsyncExitStack() as stack:
            leases = [pool.lease(adapter=None, prefix=str(n), tokens=9) for n in range(2)]
            held = {await stack.enter_async_context(lease) for lease in leases}
            assert {replica.url for replica in held} == {one.url, two.url}

            names.addresses = ["127.0.0.2", "127.0.0.3"]
            async with asyncio.timeout(5):
                while one.url in [server.replica.url for server in pool.servers]:  # noqa: ASYNC110
                    await asyncio.sleep(0.01)

            for number in range(3):
                lease = pool.lease(adapter=None, prefix=f"later {number}", tokens=9)
                assert (await stack.enter_async_context(lease)).url == two.url
        await two.kill()
    assert [status.in_flight for status in pool.status() if status.name == two.name] == [0]


async def test_pool_of_no_server_says_so_at_once():
    async with watched("http://127.0.0.1:1", Names()) as pool:
        assert not await pool.ready()
        with pytest.raises(BackendUnavailable):
            async with pool.lease(adapter=None, prefix="", tokens=1):
                pass


@pytest.mark.parametrize(
    ("error", "state"),
    [
        (BackendUnavailable("gone"), "open"),
        (StallTimeout("silent"), "open"),
        (BackendOverloaded("full"), "up"),
        (InvalidAnswer("bad", "bad"), "up"),
        (BadRequest("bad"), "up"),
        (asyncio.CancelledError(), "up"),
    ],
)
async def test_only_what_speaks_against_the_server_stops_its_use(error: BaseException, state: str):
    async with farm(SlowVllm, machines=1) as (machine,), watched(machine.url, Names()) as pool:
        for _ in range(3):
            with pytest.raises(type(error)):
                async with pool.lease(adapter=None, prefix="", tokens=1):
                    raise error

        assert [status.state for status in pool.status()] == [state]


async def test_place_that_is_given_to_one_who_just_left_is_given_on():
    async with (
        farm(SlowVllm, machines=1) as (machine,),
        watched(machine.url, Names(), max_in_flight=1) as pool,
    ):
        first = pool.lease(adapter=None, prefix="", tokens=1)
        await first.__aenter__()
        waiting = asyncio.ensure_future(pool.lease(adapter=None, prefix="", tokens=1).__aenter__())
        await asyncio.sleep(0.02)

        # Both in one turn of the loop: the place is given, and the one who gets it is cancelled.
        await first.__aexit__(None, None, None)
        waiting.cancel()
        await asyncio.gather(waiting, return_exceptions=True)

        async with asyncio.timeout(2), pool.lease(adapter=None, prefix="", tokens=1):
            assert pool.status()[0].in_flight == 1


async def test_drained_server_is_waited_for_and_then_used_again():
    async with farm(SlowVllm, machines=1) as (machine,), watched(machine.url, Names()) as pool:
        (server,) = pool.servers
        lease = pool.lease(adapter=None, prefix="", tokens=1)
        await lease.__aenter__()
        drained = pool.drained(server)
        draining = asyncio.ensure_future(drained.__aenter__())
        await asyncio.sleep(0.05)
        assert not draining.done()
        with pytest.raises(BackendUnavailable):
            async with pool.lease(adapter=None, prefix="", tokens=1):
                pass

        await lease.__aexit__(None, None, None)
        await draining
        assert pool.status()[0].state == "draining"

        await drained.__aexit__(None, None, None)
        async with pool.lease(adapter=None, prefix="", tokens=1):
            pass


async def test_server_that_does_not_drain_in_time_is_used_again():
    async with (
        farm(SlowVllm, machines=1) as (machine,),
        watched(machine.url, Names(), drain_s=0.1) as pool,
        pool.lease(adapter=None, prefix="", tokens=1),
    ):
        with pytest.raises(TimeoutError):
            async with pool.drained(pool.servers[0]):
                pass

        assert pool.status()[0].state != "draining"


async def test_adapter_that_a_server_has_is_not_loaded_again_with_each_proof(tmp_path: Path):
    async with (
        farm(SlowVllm, machines=1) as (machine,),
        pooled(tmp_path, "vllm", [machine], pool=RENEWED) as proxy,
    ):
        canaries = len(machine.engine.bodies)
        await proxy.until(lambda told: len(machine.engine.bodies) > canaries + 1)

        assert machine.engine.loads == [str(tmp_path / "adapters" / "chat-v1")]
        assert machine.engine.refusals == []
