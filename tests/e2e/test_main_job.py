"""An OpenAI client gets verified tool calls from the shipped adapters, as `make serve` promises."""

from __future__ import annotations

import contextlib
import json
import signal
import socket
import subprocess
import sys
import threading
import time
import urllib.request
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path

import jsonschema_rs
import pytest
from openai import BadRequestError, NotFoundError, OpenAI
from openai.types.chat import ChatCompletionMessage, ChatCompletionToolParam

pytest.importorskip("openvino_genai", reason="needs the embedded extra")

ROOT = Path(__file__).parents[2]


def tool(name: str, description: str, **properties: str) -> ChatCompletionToolParam:
    """A function all of whose parameters (name → JSON type) are required."""
    schema = {
        "type": "object",
        "required": list(properties),
        "properties": {key: {"type": kind} for key, kind in properties.items()},
    }
    function = {"name": name, "description": description, "parameters": schema}
    return {"type": "function", "function": function}


COUNTRIES = tool("getallcountry", "Fetches a list of all countries, page by page.", page="integer")
SCHEDULE = tool(
    "schedule_by_date",
    "Gets the schedule of a sport's events on a given date (YYYY-MM-DD).",
    date="string",
    sport_id="integer",
)
MULTIPLE = tool(
    "least_common_multiple",
    "Computes the least common multiple of two positive integers.",
    a="integer",
    b="integer",
)
API = [COUNTRIES, SCHEDULE, MULTIPLE]
WEATHER = tool(
    "Weather_1_GetWeather",
    "Retrieves the weather forecast for a city on a date (YYYY-MM-DD).",
    city="string",
    date="string",
)


@dataclass
class Server:
    process: subprocess.Popen[bytes]
    config: Path
    port: int
    log: Path

    @property
    def client(self) -> OpenAI:
        return OpenAI(base_url=f"http://127.0.0.1:{self.port}/v1", api_key="none", max_retries=0)


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Server]:
    """`headrace serve` with the shipped routes.yaml, recording into a directory of its own."""
    scratch = tmp_path_factory.mktemp("serve")
    shipped = (ROOT / "routes.yaml").read_text()
    shipped = shipped.replace("adapters: adapters ", f"adapters: {ROOT / 'adapters'} ")
    shipped = shipped.replace("~/.local/state/headrace/record", str(scratch / "record"))
    (scratch / "routes.yaml").write_text(shipped)
    started = start(scratch / "routes.yaml", free_port(), scratch / "log")
    try:
        wait_until_ready(started)
        yield started
    finally:
        started.process.kill()
        started.process.wait()


def start(config: Path, port: int, log: Path) -> Server:
    command = [sys.executable, "-m", "proxy", "serve", "--config", str(config), "--port", str(port)]
    with log.open("wb") as output:
        process = subprocess.Popen(command, cwd=ROOT, stdout=output, stderr=output)
    return Server(process, config, port, log)


def free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


def wait_until_ready(server: Server, patience: float = 240) -> None:
    """The first start merges the adapters, which takes a busy machine a while."""
    end = time.monotonic() + patience
    while time.monotonic() < end and server.process.poll() is None:
        with contextlib.suppress(OSError):
            urllib.request.urlopen(f"http://127.0.0.1:{server.port}/ready").close()
            return
        time.sleep(0.2)
    pytest.fail(server.log.read_text())


def asked(server: Server, question: str, *tools: ChatCompletionToolParam) -> ChatCompletionMessage:
    completion = server.client.chat.completions.create(
        model="gpt-4o", messages=[{"role": "user", "content": question}], tools=list(tools)
    )
    assert completion.choices[0].finish_reason == "tool_calls"
    return completion.choices[0].message


@pytest.mark.parametrize(
    ("question", "right"),
    [
        ("Fetch the first 100 countries in ascending order.", COUNTRIES),
        ("Get the schedule for October 14th, 2022, for sport id 1.", SCHEDULE),
        ("Find the least common multiple of 18 and 12.", MULTIPLE),
    ],
)
def test_structured_request_is_answered_by_a_valid_call_of_the_right_tool(server, question, right):
    (call,) = asked(server, question, *API).tool_calls

    assert call.function.name == right["function"]["name"]
    jsonschema_rs.validate(right["function"]["parameters"], json.loads(call.function.arguments))


def test_arguments_are_those_of_the_question(server):
    (call,) = asked(server, "Find the least common multiple of 18 and 12.", *API).tool_calls

    assert json.loads(call.function.arguments) == {"a": 18, "b": 12}


def test_streamed_answer_assembles_to_the_whole_one(server):
    question = {"role": "user", "content": "Find the least common multiple of 18 and 12."}
    (whole,) = asked(server, question["content"], *API).tool_calls

    with server.client.chat.completions.stream(
        model="gpt-4o", messages=[question], tools=API
    ) as stream:
        (streamed,) = stream.get_final_completion().choices[0].message.tool_calls

    assert streamed.function.name == whole.function.name
    assert streamed.function.arguments == whole.function.arguments


def test_tools_of_a_domain_are_answered_by_its_adapter(server):
    raw = server.client.chat.completions.with_raw_response.create(
        model="headrace",
        messages=[{"role": "user", "content": "What's the weather in Hanoi on 2023-03-08?"}],
        tools=[WEATHER],
        tool_choice="required",
    )

    assert raw.headers["x-headrace-domain"] == "bookings"
    assert raw.headers["x-headrace-adapter"].startswith("bookings-v")
    (call,) = raw.parse().choices[0].message.tool_calls
    assert call.function.name == "Weather_1_GetWeather"
    assert set(json.loads(call.function.arguments)) == {"city", "date"}


def test_unknown_tools_go_to_the_general_adapter(server):
    raw = server.client.chat.completions.with_raw_response.create(
        model="gpt-4o-mini",
        messages=[{"role": "user", "content": "Turn on the lamp in the kitchen."}],
        tools=[tool("switch_lamp", "Switches a lamp on or off.", room="string", on="boolean")],
    )

    assert raw.headers["x-headrace-domain"] == "api"
    assert raw.headers["x-headrace-adapter"].startswith("api-v")


def test_chat_without_tools_is_answered_by_the_base_model(server):
    raw = server.client.chat.completions.with_raw_response.create(
        model="gpt-4o",
        messages=[{"role": "user", "content": "What is the capital of France?"}],
        max_tokens=30,
    )

    assert raw.headers["x-headrace-domain"] == "chat"
    assert "x-headrace-adapter" not in raw.headers
    assert "Paris" in raw.parse().choices[0].message.content


def test_answer_can_be_held_to_a_schema(server):
    schema = {
        "type": "object",
        "properties": {"city": {"type": "string"}, "country": {"type": "string"}},
        "required": ["city", "country"],
    }
    completion = server.client.chat.completions.create(
        model="gpt-4o",
        messages=[{"role": "user", "content": "Name the capital of France and its country."}],
        response_format={"type": "json_schema", "json_schema": {"name": "c", "schema": schema}},
        max_tokens=60,
    )

    assert set(json.loads(completion.choices[0].message.content)) == {"city", "country"}


def test_unknown_model_is_told(server):
    with pytest.raises(NotFoundError) as told:
        server.client.chat.completions.create(
            model="gpt-7", messages=[{"role": "user", "content": "x"}]
        )

    assert told.value.code == "model_not_found"


def test_broken_tool_schema_is_told_with_its_place(server):
    broken = tool("f", "d")
    broken["function"]["parameters"] = {"type": "strange"}

    with pytest.raises(BadRequestError, match=r"\$\.tools\[0\]\.function\.parameters"):
        server.client.chat.completions.create(
            model="gpt-4o", messages=[{"role": "user", "content": "x"}], tools=[broken]
        )


def test_every_exchange_is_in_the_record(server):
    completion = server.client.chat.completions.create(
        model="gpt-4o", messages=[{"role": "user", "content": "Say hello."}], max_tokens=8
    )
    time.sleep(1.5)  # the record is synced every half second

    listed = subprocess.run(
        [sys.executable, "-m", "proxy", "record", "ls", "--config", str(server.config)],
        cwd=ROOT,
        capture_output=True,
        text=True,
        check=True,
    )

    assert completion.id in listed.stdout


def test_port_in_use_is_told_and_nothing_is_started(server, tmp_path):
    second = start(server.config, server.port, tmp_path / "log")

    assert second.process.wait(timeout=60) == 1
    assert str(server.port) in second.log.read_text()


def test_reload_keeps_answering_from_the_engine(server: Server):
    """Settings change while the embedded engine answers: calls go on, none of them fails."""
    text = server.config.read_text()
    server.config.write_text(text.replace("headrace]", "headrace, renamed]"))
    with ThreadPoolExecutor(1) as beside:
        ended = threading.Event()
        asking = beside.submit(calls_until, ended, server)
        try:
            wait_for_model(server, "renamed")
        finally:
            ended.set()
            server.config.write_text(text)

    assert set(asking.result()) == {"getallcountry"}
    assert asked(server, "List all countries, page 1.", *API).tool_calls


def calls_until(ended: threading.Event, server: Server) -> list[str]:
    """The functions that were called until `ended`, and once afterwards."""
    called = []
    while not called or not ended.is_set():
        message = asked(server, "List all countries, page 1.", COUNTRIES)
        called += [call.function.name for call in message.tool_calls or []]
    return called


def wait_for_model(server: Server, name: str, patience: float = 240) -> None:
    end = time.monotonic() + patience
    while name not in [model.id for model in server.client.models.list()]:
        assert time.monotonic() < end, server.log.read_text()
        time.sleep(0.2)


def test_terminated_server_ends_cleanly(server, tmp_path):
    """Last, as the module's server is gone afterwards."""
    server.process.send_signal(signal.SIGTERM)

    assert server.process.wait(timeout=60) == 0
