from __future__ import annotations

import asyncio
import os
import re
import signal
import subprocess
import sys
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass
from pathlib import Path

import msgspec
import pytest

from proxy.__main__ import main
from proxy.protocol.exchange import Exchange
from proxy.protocol.segments import read
from proxy.server import bind
from tests import scripted
from tests.scripted import ScriptedCloud, completion
from tests.wire import ask, send

ROOT = Path(__file__).parent.parent
CALL = {
    "role": "assistant",
    "content": None,
    "tool_calls": [
        {
            "id": "call_1",
            "type": "function",
            "function": {"name": "least_common_multiple", "arguments": '{"a":12,"b":18}'},
        }
    ],
}


@pytest.fixture
def routes(tmp_path: Path, cloud: ScriptedCloud) -> Path:
    """Settings whose only backend is the scripted cloud, and whose record is in `tmp_path`."""
    cloud.plays(scripted.answer(completion(CALL, "tool_calls")))
    path = tmp_path / "routes.yaml"
    path.write_text(
        f"version: 1\nmodels: [gpt-4o]\n"
        f"backends:\n  cloud: {{kind: openai, base_url: '{cloud.base_url}'}}\n"
        f"domains: {{all: {{plan: [cloud], tools: [ping]}}}}\n"
        f"defaults: {{tools: all, chat: all}}\nrecord: {{directory: record}}\n"
    )
    return path


@dataclass
class Served:
    """A `headrace serve` that has said it is ready."""

    process: asyncio.subprocess.Process
    welcome: str

    @property
    def base_url(self) -> str:
        return re.search(r"base_url (\S+)", self.welcome)[1]

    async def stop(self, number: int = signal.SIGTERM) -> int:
        self.process.send_signal(number)
        async with asyncio.timeout(10):
            return await self.process.wait()


@asynccontextmanager
async def served(routes: Path, *arguments: str) -> AsyncIterator[Served]:
    process = await asyncio.create_subprocess_exec(
        sys.executable,
        "-m",
        "proxy",
        "serve",
        "--config",
        routes,
        "--port",
        "0",
        *arguments,
        cwd=ROOT,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
    )
    try:
        async with asyncio.timeout(20):
            welcome = await process.stdout.readuntil(b"\nEND\n")
        yield Served(process, welcome.decode())
    finally:
        if process.returncode is None:
            process.kill()
            await process.wait()


async def run(*arguments: str | Path) -> tuple[int, str, str]:
    """Exit code, standard output and standard error of a command line."""
    environment = {k: v for k, v in os.environ.items() if k != "OPENAI_API_KEY"}
    process = await asyncio.create_subprocess_exec(
        *arguments, cwd=ROOT, stdout=subprocess.PIPE, stderr=subprocess.PIPE, env=environment
    )
    try:
        async with asyncio.timeout(30):
            out, err = await process.communicate()
    finally:
        if process.returncode is None:
            process.kill()
            await process.wait()
    return process.returncode, out.decode(), err.decode()


# ---------------------------------------------------------------- serve


async def test_address_that_is_printed_answers(routes: Path):
    async with served(routes) as server:
        response = await ask(server.base_url)

    assert response.status == 200


async def test_printed_curl_line_works_as_pasted(routes: Path):
    async with served(routes) as server:
        curl = server.welcome[server.welcome.index("curl") : server.welcome.index("python -")]
        code, out, _ = await run("bash", "-c", curl)

    answer = msgspec.json.decode(out)
    assert code == 0
    assert answer["choices"][0]["finish_reason"] == "tool_calls"


async def test_printed_python_snippet_works_as_pasted(routes: Path, cloud: ScriptedCloud):
    async with served(routes) as server:
        snippet = server.welcome[server.welcome.index("python -") :]
        python = snippet.replace("python -", f"{sys.executable} -", 1)
        code, out, _ = await run("bash", "-c", python)

    assert code == 0
    assert "least_common_multiple" in out
    assert cloud.requests[0].json["tools"][0]["function"]["name"] == "least_common_multiple"


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
async def test_stopped_server_has_written_its_record(routes: Path, number: int):
    async with served(routes) as server:
        await ask(server.base_url)
        code = await server.stop(number)

    assert code == 0
    assert [exchange.status for exchange in read(routes.parent / "record")] == [200]


async def test_log_is_one_json_object_a_line(routes: Path):
    async with served(routes) as server:
        await ask(server.base_url)
        await server.stop()
        log = await server.process.stderr.read()

    (line,) = [msgspec.json.decode(line) for line in log.splitlines()]
    assert (line["event"], line["status"], line["level"]) == ("request_answered", 200, "info")


async def test_stderr_that_nobody_reads_stops_no_request(routes: Path):
    """A pipe takes 64 KiB; each request's line is some 300 bytes long, its path 2000 more."""
    async with served(routes) as server:
        for _ in range(150):
            path = server.base_url + "/models/" + "x" * 2000
            assert (await send("GET", path)).status == 404
        assert (await ask(server.base_url)).status == 200
        server.process.kill()
        log = await server.process.stderr.read()

    assert len(log) < 150 * 2000


async def test_port_in_use_ends_with_one_line(routes: Path):
    with bind("127.0.0.1", 0) as taken:
        taken.listen()
        port = str(taken.getsockname()[1])
        code, out, err = await run(
            sys.executable, "-m", "proxy", "serve", "--config", routes, "--port", port
        )

    assert (code, out) == (1, "")
    assert re.fullmatch(rf"headrace: 127\.0\.0\.1:{port} is in use; .*\n", err)


async def test_open_address_without_keys_is_refused(routes: Path):
    code, _, err = await run(
        sys.executable, "-m", "proxy", "serve", "--config", routes, "--host", "0.0.0.0"
    )

    assert code == 2
    assert re.fullmatch(r"headrace: 0\.0\.0\.0 can be reached .* auth\.keys .*\n", err)


def test_missing_extra_is_told_with_the_command(tmp_path: Path, routes: Path):
    text = routes.read_text()
    routes.write_text(re.sub(r"\{kind: openai.*?\}", "{kind: embedded, base_model: x}", text))
    # A module that fails to import as an absent one does, found before the real one.
    (tmp_path / "gguf.py").write_text("raise ModuleNotFoundError(name='gguf')")

    stopped = subprocess.run(
        [sys.executable, "-m", "proxy", "serve", "--config", routes, "--port", "0"],
        cwd=ROOT,
        capture_output=True,
        env=os.environ | {"PYTHONPATH": str(tmp_path)},
    )

    assert stopped.returncode == 2
    assert re.fullmatch(
        rb"headrace: .* package 'gguf', .* pip install 'headrace\[embedded\]'\n", stopped.stderr
    )


# ---------------------------------------------------------------- check, record


def test_check_prints_the_route_table(routes: Path, capsys: pytest.CaptureFixture[str]):
    assert main(["check", "--config", str(routes)]) == 0

    out = capsys.readouterr().out
    assert "all     ping   cloud  enforce" in out
    assert "no tools → all" in out


def test_check_tells_a_mistake_on_one_line(routes: Path, capsys: pytest.CaptureFixture[str]):
    routes.write_text(routes.read_text().replace("plan", "plna"))

    assert main(["check", "--config", str(routes)]) == 2

    assert capsys.readouterr().err == (
        f"headrace: {routes}:5:17: $.domains.all: Object contains unknown field `plna`;"
        " did you mean `plan`?\n"
    )


def test_check_finds_a_champion_without_a_bundle(routes: Path, capsys: pytest.CaptureFixture[str]):
    text = routes.read_text()
    routes.write_text(re.sub(r"\{kind: openai.*?\}", "{kind: embedded, base_model: x}", text))
    (routes.parent / "adapters").mkdir()
    (routes.parent / "adapters" / "champions.json").write_text('{"all": "all-v1"}')

    assert main(["check", "--config", str(routes)]) == 1

    assert "all-v1/manifest.json: No such file" in capsys.readouterr().err


def test_unknown_option_is_a_usage_error(capsys: pytest.CaptureFixture[str]):
    with pytest.raises(SystemExit) as caught:
        main(["serve", "--prot", "1"])

    assert caught.value.code == 2


@pytest.mark.parametrize("option", ["--port 65536", "--port x", "--workers 0"])
def test_number_out_of_range_is_a_usage_error(option: str, capsys: pytest.CaptureFixture[str]):
    with pytest.raises(SystemExit) as raised:
        main(["serve", *option.split()])

    name, value = option.split()
    assert raised.value.code == 2
    assert f"argument {name}: {value!r} is no number from " in capsys.readouterr().err


async def test_record_is_listed_and_shown(routes: Path, capsys: pytest.CaptureFixture[str]):
    async with served(routes) as server:
        await ask(server.base_url, headers={"x-request-id": "trace-1"})
        await server.stop()

    assert main(["record", "ls", "--config", str(routes)]) == 0
    assert "chatcmpl-cloud  200  completed" in capsys.readouterr().out
    assert main(["record", "show", "trace-1", "--config", str(routes)]) == 0
    assert msgspec.json.decode(capsys.readouterr().out, type=Exchange).id == "chatcmpl-cloud"


def test_exchange_that_is_not_there_is_told(routes: Path, capsys: pytest.CaptureFixture[str]):
    assert main(["record", "show", "nothing", "--config", str(routes)]) == 1

    assert "no exchange 'nothing'" in capsys.readouterr().err


def test_help_has_examples_and_exit_codes(capsys: pytest.CaptureFixture[str]):
    with pytest.raises(SystemExit):
        main(["--help"])

    out = capsys.readouterr().out
    assert "headrace keys new --tenant" in out
    assert "exit codes: 0 done" in out


@pytest.mark.parametrize("shell", ["bash", "zsh"])
def test_shells_learn_to_complete(shell: str, capsys: pytest.CaptureFixture[str]):
    assert main(["completion", shell]) == 0

    out = capsys.readouterr().out
    assert "plan-gpu" in out
    assert "--overlap-hours" in out


async def test_bash_takes_what_it_is_told():
    code, out, err = await run(
        "bash", "-c", f"{sys.executable} -m proxy completion bash > /dev/stdout | bash -n"
    )

    assert (code, out, err) == (0, "", "")


# ---------------------------------------------------------------- plan-gpu

PLAN = ["plan-gpu", "--base", "llama-3.1-8b", "--gpu", "rtx3090", "--adapters", "6"]


def test_plan_is_printed_as_a_table_with_the_launch_lines(capsys: pytest.CaptureFixture[str]):
    assert main([*PLAN, "--context", "4096", "--gpus", "2"]) == 0

    out = capsys.readouterr().out
    assert out.startswith("llama-3.1-8b, nf4, 6 adapters of rank 32")
    assert out.count("\nCUDA_VISIBLE_DEVICES=1 ") == 2


def test_plan_is_printed_as_json(capsys: pytest.CaptureFixture[str]):
    assert main([*PLAN, "--context", "4096", "--json"]) == 0

    plan = msgspec.json.decode(capsys.readouterr().out)
    assert [fit["engine"] for fit in plan["fits"]] == ["tgi", "vllm"]


def test_plan_that_does_not_fit_is_a_fault_of_the_command_line(
    capsys: pytest.CaptureFixture[str],
):
    assert main([*PLAN, "--context", "131072", "--quantize", "bf16"]) == 2

    assert "What would fit: --context" in capsys.readouterr().err


def test_plan_for_less_than_one_card_is_told(capsys: pytest.CaptureFixture[str]):
    assert main([*PLAN, "--context", "4096", "--gpus", "0"]) == 2

    assert "$.gpus" in capsys.readouterr().err


def test_check_shows_what_is_compared(routes: Path, capsys: pytest.CaptureFixture[str]):
    shadow = "shadow: {to: other, share: 0.2, budget_usd_per_day: 20, hours: '22:00-06:00'}"
    routes.write_text(
        routes.read_text()
        .replace(
            "domains:", "  other: {kind: openai, base_url: 'https://x.example.org/v1'}\ndomains:"
        )
        .replace("[cloud], ", f"[cloud, other], {shadow}, split: {{cloud: 0.9, other: 0.1}}, ")
    )

    assert main(["check", "--config", str(routes)]) == 0

    assert (
        "split cloud 90% / other 10% by conversation,"
        " shadow to other 20% · 8 at once · 20 USD a day · 22:00-06:00 UTC"
    ) in capsys.readouterr().out
