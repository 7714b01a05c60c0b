"""Who may read /metrics, and what it says of the state of things."""

from __future__ import annotations

from pathlib import Path

import pytest
from msgspec.structs import replace

from proxy.app import assemble
from proxy.backends.replicas import ReplicaStatus
from proxy.catalog import Catalog, Champions
from proxy.gauges import Gauges
from proxy.limits import Limits
from proxy.protocol.champions import appoint
from proxy.recorder import Recorder
from proxy.shadow_lane import LaneStatus
from proxy.sinks.memory import MemorySink
from tests.scraping import page, scraped, total
from tests.serving import Engine, call, finish, listening, serving_with, settings
from tests.test_catalog import BASE, write_bundle
from tests.wire import ask

ADMIN = "an-admin-key-for-tests"
USER = "a-user-key-for-tests"
KEYS = f"auth: {{keys: [{{key: {ADMIN}, admin: true}}, {{key: {USER}}}]}}"


@pytest.mark.parametrize(
    ("key", "extra", "status"),
    [
        (None, "", 200),
        (None, KEYS, 401),
        (USER, KEYS, 403),
        (ADMIN, KEYS, 200),
        (None, f"{KEYS}\nmetrics: {{public: true}}", 200),
    ],
)
async def test_where_there_are_keys_an_admin_s_is_needed(key: str | None, extra: str, status: int):
    headers = {"authorization": f"Bearer {key}"} if key else {}

    async with serving_with(settings("local", extra=extra), Engine("local", [])) as url:
        response = await page(url, headers)

    assert response.status == status
    assert (b"headrace_build_info" in response.content) == (status == 200)


async def test_prometheus_gets_the_form_that_it_asks_for():
    async with serving_with(settings("local"), Engine("local", [])) as url:
        plain = await page(url)
        openmetrics = await page(url, {"accept": "application/openmetrics-text; version=1.0.0"})

    assert plain.headers["content-type"].startswith("text/plain")
    assert openmetrics.headers["content-type"].startswith("application/openmetrics-text")
    assert openmetrics.content.endswith(b"# EOF\n")


async def test_recording_that_finds_no_room_is_counted():
    recorder = Recorder(MemorySink(), max_waiting=1)
    engine = Engine("local", [call("ping", '{"host":"a"}'), finish()])
    proxy = assemble(settings("local"), Catalog({"local": engine}, {}), recorder)

    async with listening(proxy.app) as url:
        await ask(url)
        await ask(url)
        samples = await scraped(url, requests=2)

    assert total(samples, "headrace_record_waiting") == 1
    assert total(samples, "headrace_record_dropped_total") == 1
    assert total(samples, "headrace_record_failing") == 0


async def test_adapters_that_answer_are_told(tmp_path: Path):
    write_bundle(tmp_path / "api-v1")
    appoint(tmp_path, "all", "api-v1", "test")
    champions = Champions.read(tmp_path, BASE, ["all"])
    catalog = Catalog({"local": Engine("local", [])}, {"local": champions})

    async with listening(assemble(settings("local"), catalog, None).app) as url:
        samples = await scraped(url)

    info = {"backend": "local", "domain": "all", "adapter": "api-v1"}
    assert total(samples, "headrace_adapter_info", **info) == 1
    assert total(samples, "headrace_adapter_info") == 1


class _Lanes:
    def status(self) -> dict[str, LaneStatus]:
        lane = LaneStatus(
            to="cloud",
            waiting=2,
            in_flight=1,
            sampled=9,
            outcomes={"completed": 5, "failed": 1},
            dropped={"budget": 1},
            spent_usd=0.25,
        )
        return {"api": lane}

    def trials(self) -> dict[str, LaneStatus]:
        return {"chat": replace(self.status()["api"], to="local")}


def test_shadows_are_told():
    gauges = Gauges(
        catalog=Catalog({}, {}),
        domains=[],
        limits=Limits(1),
        recorder=None,
        pools={},
        shadows=_Lanes(),
    )

    samples = {
        (sample.name, frozenset(sample.labels.items())): sample.value
        for family in gauges.read()
        for sample in family.samples
    }

    lane = {"domain": "api", "backend": "cloud"}
    assert total(samples, "headrace_shadow_waiting", **lane) == 2
    assert total(samples, "headrace_shadow_spent_usd", **lane) == 0.25
    assert total(samples, "headrace_shadows_total", **lane, outcome="completed") == 5
    assert total(samples, "headrace_shadows_dropped_total", **lane, reason="budget") == 1
    candidate = {"domain": "chat", "backend": "local"}
    assert total(samples, "headrace_shadows_total", **candidate, outcome="completed") == 5


class _Pool:
    def status(self) -> list[ReplicaStatus]:
        open = ReplicaStatus(name="a:80", state="open", in_flight=0, adapters=[], refused={})
        up = ReplicaStatus(name="b:80", state="up", in_flight=3, adapters=[], refused={})
        return [open, up]


async def test_breakers_of_servers_are_told():
    catalog = Catalog({"local": Engine("local", [])}, {})
    proxy = assemble(settings("local"), catalog, None, pools={"local": _Pool()})

    async with listening(proxy.app) as url:
        samples = await scraped(url)

    state = "headrace_replica_state"
    assert total(samples, state, backend="local", replica="a:80", state="open") == 1
    assert total(samples, state, replica="a:80") == 1
    assert total(samples, state, replica="b:80", state="up") == 1
    assert total(samples, "headrace_replica_in_flight", replica="b:80") == 3
