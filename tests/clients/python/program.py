"""What a Python client's program needs: where Headrace is, what to ask, and how to report.

A program is one class with a method for each feature, and `main(Client)` below it. A method asks
with its library as that library's users would, and returns what it got in plain values, which are
compared here. A feature that the library does not have is named in `lacks`, with the reason. Each
line of output is one JSON object: first the versions, then {feature, side, ok, detail}.
"""

from __future__ import annotations

import asyncio
import json
import os
import urllib.request
from collections.abc import Callable, Collection, Mapping
from dataclasses import dataclass, field
from importlib.metadata import version
from typing import Any

from pydantic import BaseModel

FEATURES = (
    "plain",
    "stream",
    "tools",
    "parallel_tools",
    "streamed_tools",
    "json_schema",
    "usage",
    "retry",
    "cancel",
    "stream_error",
)
SCENARIOS = {
    "tools": "call",
    "parallel_tools": "calls",
    "streamed_tools": "calls",
    "json_schema": "schema",
    "retry": "retry",
    "cancel": "slow",
    "stream_error": "cut",
}
"""What Headrace's backends play; `text` for features that are not named."""
TEXT = "Paris is sunny."
PARIS, ROME = ("get_weather", {"city": "Paris"}), ("get_weather", {"city": "Rome"})
EXPECTED: Mapping[str, Any] = {
    "plain": TEXT,
    "tools": [PARIS],
    "parallel_tools": [PARIS, ROME],
    "streamed_tools": [PARIS, ROME],
    "json_schema": {"city": "Paris", "celsius": 21},
    "usage": (3, 2),
    "retry": TEXT,
}
OPENAI_ERRORS = {
    400: "BadRequestError",
    401: "AuthenticationError",
    403: "PermissionDeniedError",
    404: "NotFoundError",
    409: "ConflictError",
    413: "APIStatusError",
    415: "APIStatusError",
    422: "UnprocessableEntityError",
    429: "RateLimitError",
    500: "InternalServerError",
    502: "InternalServerError",
    503: "InternalServerError",
    504: "InternalServerError",
}
"""Exceptions of the openai package, which other libraries let through."""

PARAMETERS = {
    "type": "object",
    "properties": {"city": {"type": "string"}},
    "required": ["city"],
    "additionalProperties": False,
}
TOOL: Any = {
    "type": "function",
    "function": {
        "name": "get_weather",
        "description": "Weather of a city.",
        "parameters": PARAMETERS,
    },
}


class Weather(BaseModel):
    """Weather of a city."""

    city: str
    celsius: int


SCHEMA = {
    "type": "object",
    "properties": {"city": {"type": "string"}, "celsius": {"type": "integer"}},
    "required": ["city", "celsius"],
    "additionalProperties": False,
}
RESPONSE_FORMAT: Any = {
    "type": "json_schema",
    "json_schema": {"name": "weather", "strict": True, "schema": SCHEMA},
}


@dataclass(frozen=True, kw_only=True)
class Question:
    """One thing to ask, and how."""

    base_url: str
    """Headrace's, with `/v1`."""
    prompt: str
    key: str
    model: str = "gpt-4o"
    headers: dict[str, str] = field(default_factory=dict)
    """Headers to send besides."""
    retries: int = 0
    """How often the library shall try again."""
    arrival: str = ""
    """URL that answers once a backend has been asked."""

    async def arrived(self) -> None:
        """Wait until a backend has been asked."""
        await asyncio.to_thread(_got, self.arrival)

    @property
    def messages(self) -> Any:
        return [{"role": "user", "content": self.prompt}]

    @property
    def root(self) -> str:
        """The URL without `/v1`, where Azure's paths begin."""
        return self.base_url.removesuffix("/v1")


class Client:
    """A library under test; its features are methods that take a Question."""

    packages: tuple[str, ...]
    """Whose versions are reported, the library's own first."""
    lacks: Mapping[str, str] = {}
    """Feature → why the library does not have it. `errors` stands for all statuses."""
    single: Collection[str] = ()
    """Features in which the library takes one tool call, and no more."""
    errors: Mapping[int, str] = OPENAI_ERRORS
    """Status → name of the exception that is raised for it, or of a class above it."""

    async def stream_error(self, q: Question) -> Any:
        """As `stream`, which is to raise; a library may have another way to tell."""
        return await self.stream(q)  # type: ignore[attr-defined]

    @staticmethod
    def status_of(error: Exception) -> int | None:
        """The HTTP status that an exception holds."""
        return getattr(error, "status_code", None)


def main(client: type[Client]) -> None:
    """Run what the environment asks for, with one line for each outcome."""
    plan = json.loads(os.environ["HEADRACE_CLIENTS"])
    _tell(versions={name: version(name) for name in client.packages})
    asyncio.run(_run(client(), plan))


async def _run(client: Client, plan: dict[str, Any]) -> None:
    for feature in FEATURES:
        if _is_there(client, feature):
            for side in plan["sides"] if feature != "retry" else plan["retries"]:
                await _report(feature, side, _ask_for(client, feature, side, plan))
    if not client.lacks.get("errors"):
        for case in plan["errors"]:
            await _report(str(case["status"]), case["side"], _provoke(client, case, plan))
    for feature, reason in client.lacks.items():
        _tell(feature=feature, side=None, ok=None, detail=reason)


def _is_there(client: Client, feature: str) -> bool:
    if hasattr(client, feature) == (feature in client.lacks):
        raise SystemExit(f"{feature}: write a method, or give the reason in `lacks`; one of both")
    return hasattr(client, feature)


async def _report(feature: str, side: str, asking: Any) -> None:
    try:
        detail = await asyncio.wait_for(asking, 60)
    except Exception as error:
        _tell(feature=feature, side=side, ok=False, detail=f"{type(error).__name__}: {error}"[:600])
    else:
        _tell(feature=feature, side=side, ok=True, detail=detail)


async def _ask_for(client: Client, feature: str, side: str, plan: dict[str, Any]) -> str:
    """What was seen; raises when it is not as it should be."""
    tag = f"{plan['client']}.{feature}.{side}"
    scenario = "call" if feature in client.single else SCENARIOS.get(feature, "text")
    place = plan["retries"][side] if feature == "retry" else {"url": plan["sides"][side]}
    question = Question(
        base_url=place["url"],
        prompt=f"[[{scenario} {tag}]] What is the weather like?",
        key=plan["key"],
        retries=2 if feature == "retry" else 0,
        arrival=f"{plan['control']}/arrived/{tag}",
    )
    if feature == "stream_error":
        return await _raised(client.stream_error(question), plan["breaks"][side])
    got = await getattr(client, feature)(question)
    match feature:
        case "stream":
            return _checked_stream(got)
        case "retry":
            _compare(got, EXPECTED["retry"])
            seen = f"{plan['control']}/seen/{place.get('tag', tag)}"
            return await _checked_wait(seen, place["after_s"])
        case "cancel":
            await asyncio.to_thread(_got, f"{plan['control']}/left/{tag}")
            return "the backend was left"
        case _:
            _compare(got, EXPECTED["tools" if feature in client.single else feature])
            return "as expected"


def _checked_stream(pieces: list[str]) -> str:
    _compare("".join(pieces), TEXT)
    if len([piece for piece in pieces if piece]) < 3:
        raise AssertionError(f"came in {len(pieces)} pieces, was sent in 3")
    return f"{len(pieces)} pieces"


async def _raised(asking: Any, says: str) -> str:
    """The exception's name; raises AssertionError when there is none that says so."""
    try:
        got = await asking
    except Exception as error:
        if says not in str(error):
            raise AssertionError(f"does not say {says!r}: {error!r}") from error
        return type(error).__name__
    raise AssertionError(f"no exception, but {got!r}")


async def _checked_wait(url: str, after_s: float) -> str:
    seen = await asyncio.to_thread(_got, url)
    if seen["requests"] < 2 or seen["waited_s"] < after_s:
        raise AssertionError(f"asked to wait {after_s} s, saw {seen}")
    return f"asked to wait {after_s} s, waited {seen['waited_s']:.2f} s"


async def _provoke(client: Client, case: dict[str, Any], plan: dict[str, Any]) -> str:
    """The exception's name; raises when it is not the one that the status calls for."""
    tag = f"{plan['client']}.{case['status']}"
    question = Question(
        base_url=case["url"],
        prompt=f"[[{case['scenario']} {tag}]] What is the weather like?" + "x" * case["padding"],
        key=case["key"],
        model=case["model"],
        headers=case["headers"],
    )
    expected = client.errors[case["status"]]
    try:
        got = await client.plain(question)  # type: ignore[attr-defined]
    except Exception as error:
        if expected not in {kind.__name__ for kind in type(error).__mro__}:
            raise AssertionError(f"expected {expected}, got {type(error).__name__}") from error
        _compare(client.status_of(error), case["status"])
        if case["says"] not in str(error):
            raise AssertionError(f"does not say {case['says']!r}: {error}") from error
        return type(error).__name__
    raise AssertionError(f"no exception, but {got!r}")


def _compare(got: Any, expected: Any) -> None:
    if got != expected:
        raise AssertionError(f"expected {expected!r}, got {got!r}")


def _got(url: str) -> dict[str, Any]:
    with urllib.request.urlopen(url, timeout=20) as answer:
        return json.load(answer)


def _tell(**line: Any) -> None:
    print(json.dumps(line), flush=True)


# ---------------------------------------------------------------- for several clients


def calls_of(calls: Any) -> list[tuple[str, dict[str, Any]]]:
    """Tool calls of the openai package, plain; streamed deltas too, which are put together."""
    whole: dict[int, list[str]] = {}
    for position, call in enumerate(calls or ()):
        index = getattr(call, "index", None)
        name, arguments = call.function.name or "", call.function.arguments or ""
        parts = whole.setdefault(position if index is None else index, ["", ""])
        parts[0] += name
        parts[1] += arguments
    return [(name, json.loads(arguments)) for name, arguments in whole.values()]


def recording_tool() -> tuple[list[tuple[str, dict[str, str]]], Callable[[str], str]]:
    """A list, and the tool `get_weather(city)` that notes its calls there."""
    called: list[tuple[str, dict[str, str]]] = []

    def get_weather(city: str) -> str:
        """Weather of a city."""
        called.append(("get_weather", {"city": city}))
        return "sunny"

    return called, get_weather
