"""What is said to the proxy is told to nobody else: no log, no metric, no error, no page."""

from __future__ import annotations

import ast
import re
from pathlib import Path
from pickle import UnpicklingError

import msgspec
import pytest
from structlog.testing import capture_logs

from tests import scripted
from tests.scraping import page
from tests.scripted import ScriptedCloud, completion
from tests.serving import Engine, serving_with, settings
from tests.wire import cloud_backend, send
from trainer.errors import TrainingError

ROOT = Path(__file__).parents[2]
PLANTED = "PLANTED-7f3a"
KEY = f"sk-{PLANTED}-key-of-a-client"


def body(**more: object) -> bytes:
    tool = {"name": f"tool_{PLANTED}", "description": PLANTED, "parameters": {"type": "object"}}
    whole = {
        "model": "gpt-4o",
        "messages": [{"role": "user", "content": PLANTED}],
        "tools": [{"type": "function", "function": tool}],
        "user": PLANTED,
        "metadata": {"a": PLANTED},
    }
    return msgspec.json.encode(whole | more)


REQUESTS = {
    "answered": body(),
    "streamed": body(stream=True),
    "malformed": b'{"model": "' + PLANTED.encode(),
    "wrong": body(messages=[{"role": PLANTED, "content": PLANTED}]),
    "broken schema": body(tools=[{"type": "function", "function": {
        "name": "f", "parameters": {"type": PLANTED}}}]),
    "broken reference": body(tools=[{"type": "function", "function": {
        "name": "f", "parameters": {"$ref": f"#/{PLANTED}"}}}]),
}  # fmt: skip


@pytest.mark.parametrize("name", REQUESTS)
@pytest.mark.parametrize("fails", [False, True])
async def test_nothing_that_is_said_is_in_a_log_or_a_metric(
    cloud: ScriptedCloud, name: str, fails: bool
):
    said = {"role": "assistant", "content": PLANTED}
    cloud.plays(
        scripted.error(500, PLANTED, PLANTED) if fails else scripted.answer(completion(said))
    )
    extra = f"auth: {{keys: [{{key: {KEY}, admin: true}}]}}"
    headers = {
        "authorization": f"Bearer {KEY}",
        "cookie": PLANTED,
        "x-headrace-conversation": PLANTED,
    }
    with capture_logs() as logs:
        async with serving_with(settings("cloud", extra=extra), cloud_backend(cloud)) as url:
            await send("POST", f"{url}/chat/completions", REQUESTS[name], headers)
            metrics = await page(url, {"authorization": f"Bearer {KEY}"})

    assert metrics.status == 200 and PLANTED not in metrics.content.decode()
    assert logs and PLANTED not in str(logs)


async def test_failure_that_nobody_foresaw_is_logged_without_what_was_said():
    class Broken(Engine):
        def lacks(self, request: object) -> str | None:
            secret = f"{PLANTED} {request!r}"
            raise RuntimeError("broken") if secret else None

    with capture_logs() as logs:
        async with serving_with(settings("local"), Broken("local", [])) as url:
            response = await send("POST", f"{url}/chat/completions", body())

    assert response.status == 500 and PLANTED not in response.content.decode()
    (failed,) = [line for line in logs if line["event"] == "request_failed"]
    assert PLANTED not in str(failed["exc_info"])


# ---------------------------------------------------------------- code from data


FORBIDDEN = {
    "pickle",
    "cPickle",
    "dill",
    "cloudpickle",
    "shelve",
    "marshal",
    "joblib",
    "jsonpickle",
}


def sources() -> list[Path]:
    return sorted([*ROOT.glob("proxy/**/*.py"), *ROOT.glob("trainer/**/*.py")])


def test_nothing_imports_what_runs_code_from_data():
    imported = {
        (str(path), name)
        for path in sources()
        for node in ast.walk(ast.parse(path.read_text()))
        for name in _imports(node)
    }

    assert len(sources()) > 300
    assert [one for one in imported if one[1].partition(".")[0] in FORBIDDEN] == []


def test_every_load_of_torch_s_is_of_weights_alone_and_of_numpy_s_without_objects():
    calls = [
        ast.unparse(node)
        for path in sources()
        for node in ast.walk(ast.parse(path.read_text()))
        if isinstance(node, ast.Call) and ast.unparse(node.func) in ("torch.load", "np.load")
    ]

    assert calls
    assert [
        c for c in calls if "weights_only=True" not in c and "allow_pickle=False" not in c
    ] == []


def test_every_page_escapes_what_it_is_given():
    made = [
        ast.unparse(node)
        for path in sources()
        for node in ast.walk(ast.parse(path.read_text()))
        if isinstance(node, ast.Call) and ast.unparse(node.func) in ("Environment", "Template")
    ]
    templates = [*ROOT.glob("proxy/**/*.jinja"), *ROOT.glob("trainer/**/*.jinja")]
    raw = re.compile(r"\|\s*safe\b|autoescape")

    assert made and len(templates) > 15
    assert [one for one in made if "autoescape=True" not in one] == []
    assert [path for path in templates if raw.search(path.read_text())] == []


def test_only_charts_are_markup():
    made = {path.name for path in sources() if "Markup(" in path.read_text()}

    assert made == {"charts.py"}


def _imports(node: ast.AST) -> list[str]:
    match node:
        case ast.Import(names=names):
            return [name.name for name in names]
        case ast.ImportFrom(module=str(module)):
            return [module]
        case _:
            return []


def test_pickled_weights_are_not_read(tmp_path: Path):
    torch = pytest.importorskip("torch")
    checkpoint = pytest.importorskip("trainer.engines.checkpoint")

    class Evil:
        def __reduce__(self) -> tuple[object, tuple[str]]:
            return (Path.touch, (Path(tmp_path / "ran"),))

    torch.save(Evil(), tmp_path / checkpoint.CHECKPOINT)

    with pytest.raises((TrainingError, UnpicklingError)):
        checkpoint.load(tmp_path, "fingerprint")
    assert not (tmp_path / "ran").exists()
