from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator

import pytest
from starlette.types import Receive, Scope, Send
from structlog.testing import capture_logs

from proxy.backends.base import Text
from proxy.errors import BackendUnavailable
from proxy.middleware import Requests
from tests.scripted import Pause
from tests.serving import Engine, finish, listening, serving_with, settings
from tests.wire import ask, send


@pytest.fixture
async def url() -> AsyncIterator[str]:
    async with serving_with(settings("local"), Engine("local", [Text("secret"), finish()])) as url:
        yield url


async def test_every_response_has_a_request_id(url: str):
    answers = [await ask(url), await ask(url, stream=True), await send("GET", f"{url}/nothing")]

    assert all(answer.headers["x-request-id"].startswith("req_") for answer in answers)


@pytest.mark.parametrize("name", ["x-request-id", "x-client-request-id"])
async def test_client_s_own_request_id_is_kept(url: str, name: str):
    response = await ask(url, headers={name: "trace-1"})

    assert response.headers["x-request-id"] == "trace-1"


@pytest.mark.parametrize("given", ["x" * 129, "a b", "ä"])
async def test_request_id_that_is_not_sane_is_replaced(url: str, given: str):
    response = await ask(url, headers={"x-request-id": given})

    assert response.headers["x-request-id"].startswith("req_")


@pytest.mark.parametrize(
    ("method", "path", "status", "code"),
    [
        ("GET", "/nothing", 404, "not_found"),
        ("GET", "/chat/completions", 404, "not_found"),
        ("TRACE", "/models", 405, "method_not_allowed"),
        ("POST", "/../health", 405, "method_not_allowed"),
    ],
)
async def test_errors_of_the_framework_have_openai_s_form(
    url: str, method: str, path: str, status: int, code: str
):
    response = await send(method, url + path)

    error = response.json["error"]
    assert response.status == status
    assert error == {
        "message": error["message"],
        "type": "invalid_request_error",
        "param": None,
        "code": code,
    }


async def test_trailing_slash_is_served_without_a_redirect(url: str):
    response = await send("GET", f"{url}/models/")

    assert response.status == 200


async def test_request_has_one_log_line_with_facts_and_without_content():
    engine = Engine("local", [Text("secret"), finish()])

    with capture_logs() as lines:
        async with serving_with(settings("local"), engine) as url:
            await ask(url, headers={"authorization": "Bearer sk-hidden"})

    (line,) = lines
    assert line["event"] == "request_answered"
    assert line.items() >= {"status": 200, "domain": "all", "backend": "local"}.items()
    assert 0 < line["first_byte_s"] <= line["total_s"] < 5
    assert not {"secret", "Ping a.", "sk-hidden"} & {*map(str, line.values())}


async def test_failure_is_in_the_log_line_by_its_code():
    engine = Engine("local", [BackendUnavailable("gone")])

    with capture_logs() as lines:
        async with serving_with(settings("local"), engine) as url:
            await ask(url)

    assert (lines[0]["status"], lines[0]["error"]) == (502, "backend_unavailable")


async def test_client_that_left_is_in_the_log_line():
    engine = Engine("local", [Pause(60)])

    with capture_logs() as lines:
        async with serving_with(settings("local"), engine) as url:
            with pytest.raises(TimeoutError):
                async with asyncio.timeout(0.2):
                    await ask(url)

    assert (lines[0]["status"], lines[0]["outcome"]) == (499, "client_aborted")


async def test_exception_that_nobody_foresaw_is_logged_and_answered_without_detail():
    async def broken(scope: Scope, receive: Receive, send: Send) -> None:
        raise ZeroDivisionError("secret")

    with capture_logs() as lines:
        async with listening(Requests(broken)) as url:
            response = await send("GET", url)

    assert response.status == 500
    assert b"secret" not in response.content
    assert response.json["error"]["code"] == "internal_error"
    assert [line["event"] for line in lines] == ["request_failed", "request_answered"]
