from __future__ import annotations

import pytest
from structlog.testing import capture_logs

from proxy.backends.addresses import Addresses, Found, resolve
from proxy.backends.engine import Replica


class Names:
    """What names resolve to, as a test has it."""

    def __init__(self, **names: list[str]) -> None:
        self.names = names

    async def __call__(self, host: str, port: int) -> list[str]:
        if host not in self.names:
            raise OSError("no such name")
        return self.names[host]


async def test_name_of_many_addresses_is_many_replicas():
    found = await Addresses(["http://tgi:8080"], Names(tgi=["10.0.0.1", "10.0.0.2"])).find()

    assert [one.replica for one in found] == [
        Replica("10.0.0.1:8080", "http://10.0.0.1:8080"),
        Replica("10.0.0.2:8080", "http://10.0.0.2:8080"),
    ]


async def test_name_of_one_address_is_asked_by_its_name():
    found = await Addresses(["http://tgi:8080"], Names(tgi=["10.0.0.1"])).find()

    assert found == [Found(Replica("tgi:8080", "http://tgi:8080"), "10.0.0.1")]


async def test_address_is_taken_as_it_is():
    found = await Addresses(["http://10.0.0.1:80", "http://[::1]:80"], Names()).find()

    assert [one.address for one in found] == ["10.0.0.1", "::1"]
    assert found[1].replica.url == "http://[::1]:80"


async def test_name_behind_a_certificate_is_never_replaced():
    found = await Addresses(["https://tgi"], Names(tgi=["10.0.0.1", "10.0.0.2"])).find()

    assert [one.replica.url for one in found] == ["https://tgi"]


async def test_addresses_of_the_newer_kind_are_put_into_brackets():
    found = await Addresses(["http://tgi:8080"], Names(tgi=["fd00::1", "fd00::2"])).find()

    assert found[0].replica == Replica("[fd00::1]:8080", "http://[fd00::1]:8080")


async def test_name_that_cannot_be_resolved_keeps_what_it_had():
    names = Names(tgi=["10.0.0.1", "10.0.0.2"], vllm=["10.0.1.1"])
    addresses = Addresses(["http://tgi:8080", "http://vllm:8080"], names)
    before = await addresses.find()
    del names.names["tgi"]

    with capture_logs() as logs:
        assert await addresses.find() == before

    assert [(entry["event"], entry["host"]) for entry in logs] == [
        ("replica_name_not_resolved", "tgi")
    ]


async def test_replica_that_is_named_twice_is_one():
    addresses = Addresses(
        ["http://10.0.0.1:80", "http://tgi:80"], Names(tgi=["10.0.0.1", "10.0.0.2"])
    )

    assert len(await addresses.find()) == 2


async def test_name_with_addresses_of_both_kinds_is_one_server():
    assert await resolve("localhost", 80) == ["127.0.0.1"]


async def test_unknown_name_is_an_os_error():
    with pytest.raises(OSError):
        await resolve("no-such-host.invalid", 80)
