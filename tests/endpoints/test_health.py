from __future__ import annotations

from proxy.app import assemble
from proxy.catalog import Catalog
from tests.serving import Engine, finish, listening, serving_with, settings
from tests.wire import send


async def test_health_answers_whatever_the_backends_say():
    engine = Engine("local", [finish()], is_ready=False)

    async with serving_with(settings("local"), engine) as url:
        response = await send("GET", url.replace("/v1", "/health"))

    assert (response.status, response.json) == (200, {"status": "ok"})


async def test_ready_when_every_domain_has_a_backend_that_is():
    first = Engine("first", [finish()], is_ready=False)
    second = Engine("second", [finish()])

    async with serving_with(settings("first", "second"), first, second) as url:
        response = await send("GET", url.replace("/v1", "/ready"))

    assert response.status == 200
    assert response.json["backends"] == {"first": False, "second": True}


async def test_not_ready_when_a_domain_has_none():
    engine = Engine("local", [finish()], is_ready=False)

    async with serving_with(settings("local"), engine) as url:
        response = await send("GET", url.replace("/v1", "/ready"))

    assert response.status == 503
    assert response.json["domains"] == {"all": False}


async def test_not_ready_when_the_server_is_on_its_way_out():
    catalog = Catalog({"local": Engine("local", [finish()])}, {})
    proxy = assemble(settings("local"), catalog, None)

    async with listening(proxy.app) as url:
        proxy.draining.begin()
        response = await send("GET", url.replace("/v1", "/ready"))

    assert (response.status, response.json["draining"]) == (503, True)


async def test_details_are_told_and_decide_nothing():
    catalog = Catalog({"local": Engine("local", [finish()])}, {})
    details = {"rollouts": {"local": "restart tgi-a:8080 with LORA_ADAPTERS=…"}}
    proxy = assemble(settings("local"), catalog, None, lambda: details)

    async with listening(proxy.app) as url:
        response = await send("GET", url.replace("/v1", "/ready"))

    assert response.status == 200
    assert response.json["rollouts"] == details["rollouts"]
