"""What a backend tells an engine and hears from it, in words that all kinds of engines share.

Native mode sends a prompt that we rendered; chat mode sends the conversation and leaves the
rendering, and the reading of tool calls, to the engine.
"""

from __future__ import annotations

from collections.abc import AsyncGenerator, Sequence
from typing import Literal, NamedTuple, Protocol, TypeAlias

import msgspec

from proxy.backends.base import Call
from proxy.backends.http import Session
from proxy.protocol.adapter import Adapter
from proxy.protocol.formats.constraint import Constraint
from proxy.protocol.openai import ChatRequest, FinishReason

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
    tenant: str = ""
    """Whose prompt it is."""


class Conversation(msgspec.Struct, frozen=True, kw_only=True):
    """What chat mode asks for."""

    adapter: str | None
    request: ChatRequest
    sampling: Sampling
    constrain: bool = False
    tenant: str = ""


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
Outputs: TypeAlias = AsyncGenerator[list[Output], None]
"""What came together, together; never nothing, as each ends a wait."""


class Dialect(Protocol):
    """One kind of engine, over HTTP. Stateless: the server is named with each call.

    Everything raised is of proxy.errors: AdapterMissing where the server does not have the adapter
    (it has been restarted), another BackendError where another server or backend may do better,
    BadRequest where none would. Leaving a generator cuts the connection, at which every
    engine here stops its work on the request.
    """

    loads_at_run_time: bool
    """Whether `load` and `unload` work; if not, new adapters take a restart of the server."""

    def lacks(self, request: ChatRequest, mode: Literal["native", "chat"]) -> str | None:
        """The first field of the request that this engine must not be given; None for none."""

    def generate(self, session: Session, url: str, generation: Generation) -> Outputs:
        """The answer to a rendered prompt. Stop strings are ours to apply, not the engine's."""

    def chat(self, session: Session, url: str, conversation: Conversation) -> Outputs:
        """The answer to a conversation, its tool calls parsed."""

    async def healthy(self, session: Session, url: str) -> bool:
        """Whether the server says that it is well; False too when it says nothing."""

    async def adapters(self, session: Session, url: str) -> set[str] | None:
        """Ids of the adapters that are loaded; None when the engine does not tell (TGI)."""

    async def load(self, session: Session, url: str, adapter: Adapter) -> None:
        """Load an adapter; one that is loaded already is left as it is."""

    async def unload(self, session: Session, url: str, adapter: str) -> None:
        """Unload an adapter; one that is not there is no error."""

    async def greedy(
        self,
        session: Session,
        url: str,
        adapter: str | None,
        prompt: Sequence[int],
        most: int,
    ) -> list[int] | str:
        """The `most` likeliest next tokens, to be held against a canary: ids, or their text where
        the engine gives no ids."""
