"""The fault that gave 0 %: an adapter, served with another template than it was trained with.

Its weights are sound, its server is healthy, and it answers as if it had learnt nothing. A real
engine on a real socket shows it, with a shipped adapter; and that such a pairing is refused before
it answers anybody.
"""

from __future__ import annotations

import asyncio
import shutil
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from importlib.util import find_spec
from pathlib import Path

import msgspec
import pytest
from openai import APIError, AsyncOpenAI

pytest.importorskip("openvino_genai", reason="needs the embedded extra")
if find_spec("bfcl_eval") is None:
    pytest.skip("bfcl-eval is not installed; run `make train-setup`", allow_module_level=True)

from proxy.config import parse
from proxy.errors import CannotStart
from proxy.protocol import adapter
from proxy.protocol.adapter import Manifest
from proxy.protocol.base_model import BaseModel
from proxy.protocol.champions import appoint
from proxy.protocol.formats.base import template
from proxy.protocol.parity import PARITY, Sample
from tests.serving import serving
from trainer import dataset, pipeline
from trainer.preflight import wire
from trainer.recipe import find as find_recipe
from trainer.rows import Row
from trainer.sources.base import Skips
from trainer.tokens import Encoder

ROOT = Path(__file__).parents[2]
ASKED = 4
OTHER = """{% for message in messages %}
### {{ message.role }}:
{{ message.content }}
{% endfor %}
### tools:
{{ tools | tojson }}
### Response:
"""
"""A usual template of instruction tuning, and none that the adapter has ever seen."""


@pytest.fixture(scope="module")
def rows(tmp_path_factory: pytest.TempPathFactory) -> list[Row]:
    """Questions that the adapter was not trained on, about tools that it was."""
    directory = tmp_path_factory.mktemp("dataset")
    pipeline.build(find_recipe("bookings"), directory, Skips())
    seen = dataset.read(directory).seen
    short = [row for row in seen if row.calls and len(row.calls[0].arguments) < 90]
    return short[:ASKED]


@pytest.fixture(scope="module")
def samples(rows: list[Row]) -> bytes:
    """What the trainer puts into a bundle of this template."""
    base = BaseModel.find("smollm2-135m-instruct")
    encoder = Encoder(base, template("hermes-compact"), "hermes")
    found = [Sample("hermes", r.messages, r.functions, encoder.prompt(r)) for r in rows]
    return msgspec.json.encode(found)


def bundle(directory: Path, samples: bytes | None, source: str | None = None) -> Path:
    """The directory, with `bookings-v1` as its champion; perhaps with another template, sealed."""
    copy = directory / "bookings-v1"
    shutil.copytree(ROOT / "adapters" / "bookings-v1", copy)
    if samples is not None:
        (copy / PARITY).write_bytes(samples)
    if source is not None:
        (copy / adapter.TEMPLATE).write_text(source)
        manifest = msgspec.json.decode((copy / adapter.MANIFEST).read_bytes(), type=Manifest)
        sealed = msgspec.structs.replace(manifest, template_sha256=adapter.sha256(source.encode()))
        (copy / adapter.MANIFEST).write_bytes(msgspec.json.encode(sealed))
    appoint(directory, "bookings", "bookings-v1", "test")
    return directory


@asynccontextmanager
async def proxy(adapters: Path) -> AsyncIterator[str]:
    text = f"""
version: 1
models: [headrace]
backends:
  local: {{kind: embedded, base_model: smollm2-135m-instruct, adapters: {adapters}, preload: false}}
domains:
  bookings: {{tools: ["*_[0-9]_*"], plan: [local], constrain: false}}
defaults: {{tools: bookings, chat: bookings}}
"""
    async with serving(parse(text, ROOT, {})) as url:
        yield url


async def right_tools(url: str, rows: list[Row]) -> int:
    """How many rows are answered with the right tool."""
    client = AsyncOpenAI(base_url=url, api_key="none", max_retries=0)
    async with client:
        answered = await asyncio.gather(*(tool_called(client, row) for row in rows))
    return sum(name == row.calls[0].name for name, row in zip(answered, rows, strict=True))


async def tool_called(client: AsyncOpenAI, row: Row) -> str | None:
    """The tool that the first call of an answer names; None for what is no call, or none that
    its schema allows."""
    asked = msgspec.json.decode(wire(row))
    try:
        completion = await client.chat.completions.create(**asked, temperature=0, max_tokens=96)
    except APIError:
        return None
    calls = completion.choices[0].message.tool_calls or ()
    return next((call.function.name for call in calls if call.type == "function"), None)


async def test_with_its_own_template_the_adapter_answers(tmp_path, rows, samples):
    async with proxy(bundle(tmp_path, samples)) as url:
        assert await right_tools(url, rows) >= ASKED * 3 // 4


async def test_with_another_template_it_has_learnt_nothing(tmp_path, rows):
    # Without samples, as bundles were before there was a gate, it is taken as it is.
    async with proxy(bundle(tmp_path, None, OTHER)) as url:
        assert await right_tools(url, rows) == 0


async def test_the_gate_refuses_that_pairing(tmp_path, samples):
    with pytest.raises(CannotStart, match=r"bookings-v1: request 0 of parity\.json .* differ"):
        async with proxy(bundle(tmp_path, samples, OTHER)):
            pass
