"""An engine that runs elsewhere: TGI, vLLM or SGLang, one server or many behind one name.

Three parts that know nothing of each other's work meet here:

    Pool      which server is asked, and how much it is given at once     replicas.py
    Dialect   what one server is told and how its answer is read          tgi/, vllm.py
    Backend   prompt in, events out, in which time                        below

Native mode sends a prompt that we rendered; chat mode sends the conversation and leaves the
rendering, and the reading of tool calls, to the engine.
"""

from __future__ import annotations

from collections.abc import AsyncGenerator, Sequence
from contextlib import AbstractAsyncContextManager
from typing import NamedTuple, Protocol

import aiohttp
import msgspec

from proxy.backends.base import Call
from proxy.protocol.adapter import Adapter
from proxy.protocol.formats.constraint import Constraint
from proxy.protocol.openai import ChatRequest, FinishReason

# ---------------------------------------------------------------- which server


class Replica(NamedTuple):
    """One server of a backend."""

    name: str
    """As logs, metrics and /ready call it: host and port."""
    url: str
    """Where its API begins, without a path and without a slash at the end."""


class Pool(Protocol):
    """The servers of one backend."""

    def lease(
        self, *, adapter: str | None, prefix: str, tokens: int
    ) -> AbstractAsyncContextManager[Replica]:
        """A server to ask, for as long as the context lasts.

        `adapter` is the id that must answer there, None the base model; `prefix` is equal for
        requests whose prompts begin alike; `tokens` is what the request may come to, prompt and
        answer. How the context is left tells how the server did: BackendUnavailable and
        BackendTimeout speak against it, all else does not (a client that leaves, a 4xx, a busy
        server, an invalid answer).

        Raises BackendOverloaded when no slot is free within the queue deadline, BackendUnavailable
        when no server is usable for this adapter.
        """

    async def ready(self) -> bool:
        """Whether at least one server is usable."""

    async def aclose(self) -> None:
        """Give everything back."""


# ---------------------------------------------------------------- what a server is told


class Prompt(NamedTuple):
    """A rendered prompt, as text and as the same text's token ids."""

    text: str
    ids: list[int]


class Sampling(msgspec.Struct, frozen=True, kw_only=True):
    """How an answer is drawn."""

    max_tokens: int
    temperature: float = 0.0
    """0: the likeliest token each time."""
    top_p: float = 1.0
    seed: int | None = None
    frequency_penalty: float = 0.0
    presence_penalty: float = 0.0


class Generation(msgspec.Struct, frozen=True, kw_only=True):
    """What native mode asks for."""

    adapter: str | None
    """Id of the adapter; None asks the base model."""
    prompt: Prompt
    sampling: Sampling
    constraint: Constraint | None = None
    """What the answer may look like, for engines that can hold it to that."""


class Conversation(msgspec.Struct, frozen=True, kw_only=True):
    """What chat mode asks for."""

    adapter: str | None
    request: ChatRequest
    sampling: Sampling
    constrain: bool = False


# ---------------------------------------------------------------- what a server says


class Piece(msgspec.Struct, frozen=True):
    """Text of the answer; special tokens are left out, but counted."""

    text: str
    tokens: int = 1
    logprob: float | None = None
    """Natural-log probability, summed over the tokens."""


class End(msgspec.Struct, frozen=True, kw_only=True):
    """The answer is over. Always the last output."""

    reason: FinishReason
    prompt_tokens: int | None = None
    """As the engine counts; None where it does not say."""
    tokens: int | None = None


Output = Piece | Call | End


class Dialect(Protocol):
    """One kind of engine, over HTTP. Stateless: the server is named with each call.

    Everything raised is of proxy.errors: BackendError where another server or backend may do
    better, BadRequest where none would. Leaving a generator cuts the connection, at which every
    engine here stops its work on the request.
    """

    loads_at_run_time: bool
    """Whether `load` and `unload` work; if not, new adapters take a restart of the server."""

    def generate(
        self, session: aiohttp.ClientSession, url: str, generation: Generation
    ) -> AsyncGenerator[Output, None]:
        """The answer to a rendered prompt. Stop strings are ours to apply, not the engine's."""

    def chat(
        self, session: aiohttp.ClientSession, url: str, conversation: Conversation
    ) -> AsyncGenerator[Output, None]:
        """The answer to a conversation, its tool calls parsed."""

    async def healthy(self, session: aiohttp.ClientSession, url: str) -> bool:
        """Whether the server says that it is well; False too when it says nothing."""

    async def adapters(self, session: aiohttp.ClientSession, url: str) -> set[str] | None:
        """Ids of the adapters that are loaded; None when the engine does not tell (TGI)."""

    async def load(self, session: aiohttp.ClientSession, url: str, adapter: Adapter) -> None:
        """Load an adapter; one that is loaded already is left as it is."""

    async def unload(self, session: aiohttp.ClientSession, url: str, adapter: str) -> None:
        """Unload an adapter; one that is not there is no error."""

    async def greedy(
        self,
        session: aiohttp.ClientSession,
        url: str,
        adapter: str | None,
        prompt: Sequence[int],
        most: int,
    ) -> list[int] | str:
        """The `most` likeliest next tokens, to be held against a canary: ids, or their text where
        the engine gives no ids."""
