from __future__ import annotations

from openai import AsyncOpenAI

from tests.serving import Engine, finish, serving_with, settings
from tests.wire import send

KEY = "0123456789abcdef"


async def test_official_client_lists_what_it_may_ask_for():
    async with serving_with(settings("local"), Engine("local", [finish()])) as url:
        client = AsyncOpenAI(base_url=url, api_key="none")
        models = await client.models.list()
        model = await client.models.retrieve("headrace")

    assert [model.id for model in models.data] == ["gpt-4o", "headrace"]
    assert model.object == "model"


async def test_model_that_nobody_serves_is_not_found():
    async with serving_with(settings("local"), Engine("local", [finish()])) as url:
        response = await send("GET", f"{url}/models/gpt-9")

    assert response.status == 404
    assert response.json["error"]["code"] == "model_not_found"


async def test_list_needs_a_key_where_there_are_keys():
    keyed = settings("local", extra=f"auth: {{keys: [{{key: {KEY}}}]}}")

    async with serving_with(keyed, Engine("local", [finish()])) as url:
        without = await send("GET", f"{url}/models")
        bearing = await send("GET", f"{url}/models", headers={"authorization": f"Bearer {KEY}"})

    assert (without.status, bearing.status) == (401, 200)
