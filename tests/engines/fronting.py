"""A proxy in front of a stand-in engine, made from its settings alone, with a cloud behind both."""

from __future__ import annotations

import asyncio
import functools
from collections.abc import AsyncIterator
from contextlib import aclosing, asynccontextmanager
from dataclasses import dataclass
from pathlib import Path

import msgspec
from tokenizers import Tokenizer

from proxy.app import assemble
from proxy.backends import connect, http
from proxy.backends.base import Backend
from proxy.backends.openai import OpenAIBackend
from proxy.backends.replicas import Replicas
from proxy.backends.settings import OpenAISettings, TgiSettings, VllmSettings
from proxy.backends.vocabulary import Vocabulary
from proxy.catalog import Base, Catalog, Champions
from proxy.config import Config, parse
from proxy.protocol.adapter import Adapter, Canary
from proxy.protocol.base_model import BaseModel
from proxy.protocol.formats import FORMATS
from proxy.protocol.formats.base import END
from tests.engines.alone import alone
from tests.engines.standing import StandIn, standing
from tests.engines.tgi_stand_in import TgiStandIn
from tests.engines.toy import Toy
from tests.engines.vllm_stand_in import VllmStandIn
from tests.scripted import ScriptedCloud, answer, completion, scripted_cloud
from tests.serving import listening

ROOT = Path(__file__).parents[2]
MODEL = "smollm2-135m-instruct"
CLOUD = "The cloud answers."
KINDS = ("tgi-native", "tgi-chat", "vllm-native", "vllm-chat")
ADAPTERS = {"bookings-v1": FORMATS["hermes"], "api-v1": FORMATS["structured"]}
"""The shipped adapters, id → format."""


@dataclass
class Front:
    """A proxy, the engine that it asks first, and the cloud that it asks then."""

    kind: str
    url: str
    engine: StandIn
    cloud: ScriptedCloud


@functools.cache
def tokenizer() -> Tokenizer:
    return BaseModel.find(MODEL).tokenizer


@functools.cache
def vocabulary() -> Vocabulary:
    return Vocabulary(tokenizer(), MODEL)


def stand_in(kind: str) -> StandIn:
    """An engine of this kind that has loaded the shipped adapters."""
    toy = Toy(tokenizer(), ADAPTERS, END)
    return TgiStandIn(toy) if kind.startswith("tgi") else VllmStandIn(toy)


@asynccontextmanager
async def fronting(kind: str, **settings: object) -> AsyncIterator[Front]:
    """A proxy whose domains are the adapters', and `chat` for requests without tools."""
    engine = stand_in(kind)
    async with standing(engine), scripted_cloud() as cloud:
        cloud.plays(answer(completion({"role": "assistant", "content": CLOUD})))
        config = configuration(kind, engine.url, cloud.base_url, settings)
        async with assembled(config, champions()) as url:
            # What the canaries asked is none of a test's business.
            engine.bodies.clear()
            engine.prompts.clear()
            yield Front(kind, url, engine, cloud)


@asynccontextmanager
async def assembled(config: Config, champions: Champions) -> AsyncIterator[str]:
    """What `proxy.app.running` makes of the settings, with what is slow to read made once."""
    local = config.backends["local"]
    assert isinstance(local, TgiSettings | VllmSettings)
    session = http.Session(local.connect_s, local.api_key)
    pool = connect.pool("local", local, vocabulary(), session)
    pool.want(champions.adapters)
    backend = connect.backend("local", local, vocabulary(), pool, session)
    async with served(config, backend, champions) as url, watched(pool):
        yield url


@asynccontextmanager
async def unproven(config: Config) -> AsyncIterator[str]:
    """The same before a server that passes no canary, as a recording cannot."""
    local = config.backends["local"]
    assert isinstance(local, TgiSettings | VllmSettings)
    async with served(config, alone(local, vocabulary()), shipped()) as url:
        yield url


@asynccontextmanager
async def served(config: Config, local: Backend, champions: Champions) -> AsyncIterator[str]:
    """A proxy around this backend and the settings' cloud."""
    cloud = config.backends["cloud"]
    assert isinstance(cloud, OpenAISettings)
    async with (
        aclosing(local) as engine,
        aclosing(OpenAIBackend("cloud", base_url=cloud.base_url)) as fallback,
    ):
        catalog = Catalog({"local": engine, "cloud": fallback}, {"local": champions})
        async with listening(assemble(config, catalog, None).app) as url:
            yield url


@asynccontextmanager
async def watched(pool: Replicas) -> AsyncIterator[None]:
    """The servers have proven what they can; they are watched until the end."""
    async with asyncio.TaskGroup() as tasks:
        watching = tasks.create_task(pool.run())
        await pool.settled(10)
        yield
        watching.cancel()


@functools.cache
def shipped() -> Champions:
    base = Base(MODEL, None, vocabulary().sha256)
    return Champions.read(ROOT / "adapters", base, ["api", "bookings"])


@functools.cache
def champions() -> Champions:
    """The shipped adapters, with canaries that a toy can pass."""
    found = shipped()
    return Champions({d: passable(a) for d, a in found.by_domain.items()}, found.by_id)


def passable(adapter: Adapter) -> Adapter:
    toy, prompt = Toy(tokenizer(), {}, END), adapter.canary.prompt
    words = (toy.words(id, prompt) for id in (adapter.id, None))
    expected, base = (vocabulary().encode(said) for said in words)
    return msgspec.structs.replace(adapter, canary=Canary(prompt, expected, base))


def configuration(kind: str, engine: str, cloud: str, settings: dict[str, object]) -> Config:
    name, _, mode = kind.partition("-")
    settings = {"adapters": "adapters"} | settings
    more = "".join(f", {key}: {value}" for key, value in settings.items())
    served = ", served_model: base" if name == "vllm" else ""
    text = f"""
version: 1
models: [gpt-4o]
backends:
  local: {{kind: {name}, mode: {mode}, replicas: ["{engine}"], base_model: {MODEL}, plain: hermes,
    pool: {{queue_s: 0.2}}{served}{more}}}
  cloud: {{kind: openai, base_url: "{cloud}"}}
domains:
  bookings: {{tools: ["*_[0-9]_*"], plan: [local, cloud]}}
  api: {{plan: [local, cloud]}}
  chat: {{plan: [local, cloud]}}
defaults: {{tools: api, chat: chat}}
"""
    return parse(text, ROOT, {})
