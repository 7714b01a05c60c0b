"""What a TGI server is told, and how its answers are read.

Native mode is `/generate_stream` with a prompt of ours; chat mode is `/v1/chat/completions`. An
adapter that is not loaded is answered by the base model, without a word: whoever asks must know.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from typing import Literal, Protocol

import msgspec

from proxy.backends import http
from proxy.backends.chat_answers import ChatAnswer, Completion, completion
from proxy.backends.dialect import Conversation, End, Generation, Output, Outputs, Piece, Sampling
from proxy.backends.tgi import chat, errors
from proxy.errors import BackendUnavailable
from proxy.protocol.adapter import Adapter
from proxy.protocol.formats.constraint import JsonObject
from proxy.protocol.openai import ChatRequest, FinishReason


class Words(Protocol):
    """What is asked of the vocabulary."""

    @property
    def beginning(self) -> str: ...
    def decode(self, ids: Sequence[int]) -> str: ...


class _Token(msgspec.Struct):
    text: str
    logprob: float | None = None
    special: bool = False


class _Details(msgspec.Struct):
    finish_reason: str
    generated_tokens: int | None = None
    input_length: int | None = None


class _Event(msgspec.Struct):
    """One event of `/generate_stream`."""

    token: _Token | None = None
    details: _Details | None = None
    error: object = None
    error_type: str | None = None


class _TokenId(msgspec.Struct):
    id: int


class _AllDetails(msgspec.Struct):
    tokens: list[_TokenId]


class _Generated(msgspec.Struct):
    """An answer of `/generate`."""

    details: _AllDetails


class Tgi:
    """TGI 3.2 and later; older answers are read as well."""

    loads_at_run_time = False

    def __init__(self, words: Words, end: str) -> None:
        """`end` is the token that ends a turn; TGI knows it only from the model's own files."""
        self._words = words
        self._end = end

    def lacks(self, request: ChatRequest, mode: Literal["native", "chat"]) -> str | None:
        return chat.lacks(request) if mode == "chat" else None

    async def generate(self, session: http.Session, url: str, generation: Generation) -> Outputs:
        body = {
            "inputs": self._bare(generation.prompt.text),
            "parameters": _parameters(generation),
        }
        async with http.post(
            session, f"{url}/generate_stream", body, errors.of_response
        ) as response:
            async for events in http.events(response):
                if outputs := list(self._up_to_the_end(events)):
                    yield outputs
                    if isinstance(outputs[-1], End):
                        return

    def chat(self, session: http.Session, url: str, conversation: Conversation) -> Outputs:
        return _chatted(session, f"{url}/v1/chat/completions", chat.body(conversation))

    async def healthy(self, session: http.Session, url: str) -> bool:
        return await http.is_well(session, url)

    async def adapters(self, session: http.Session, url: str) -> set[str] | None:
        return None

    async def load(self, session: http.Session, url: str, adapter: Adapter) -> None:
        raise BackendUnavailable(
            "TGI loads adapters at its start only: restart it with the new list"
        )

    async def unload(self, session: http.Session, url: str, adapter: str) -> None:
        raise BackendUnavailable("TGI keeps its adapters until it is restarted with another list")

    async def greedy(
        self,
        session: http.Session,
        url: str,
        adapter: str | None,
        prompt: Sequence[int],
        most: int,
    ) -> list[int]:
        parameters: dict[str, object] = {"max_new_tokens": most, "details": True}
        body = {
            "inputs": self._bare(self._words.decode(prompt)),
            "parameters": parameters | _adapter(adapter),
        }
        async with http.post(session, f"{url}/generate", body, errors.of_response) as response:
            content = await http.read(response, http.MAX_WHOLE)
        try:
            tokens = msgspec.json.decode(content, type=_Generated).details.tokens
        except (ValueError, RecursionError) as error:
            raise BackendUnavailable("the engine's answer cannot be read") from error
        return [token.id for token in tokens]

    def _bare(self, prompt: str) -> str:
        """The prompt without the token that TGI puts before it by itself."""
        beginning = self._words.beginning
        if not prompt.startswith(beginning):
            raise BackendUnavailable(
                f"TGI begins every prompt with {beginning!r}, which the adapter's template does not"
            )
        return prompt[len(beginning) :]

    def _up_to_the_end(self, events: Iterable[bytes]) -> Iterator[Output]:
        for event in events:
            for output in self._outputs(_event(event)):
                yield output
                if isinstance(output, End):
                    return

    def _outputs(self, event: _Event) -> list[Output]:
        if event.error is not None:
            raise errors.of_event(event.error, event.error_type)
        token, details = event.token, event.details
        outputs: list[Output] = []
        if token is not None and not token.special:
            outputs.append(Piece(token.text, 1, token.logprob))
        if details is not None:
            outputs.append(_ended(details))
        elif token is not None and token.special and token.text == self._end:
            # The model's files do not name it as an end, and TGI would go on.
            outputs.append(End(reason="stop"))
        return outputs


async def _chatted(session: http.Session, url: str, body: object) -> Outputs:
    answer = ChatAnswer()
    async with http.post(session, url, body, errors.of_response) as response:
        async for contents in http.contents(response):
            said = [one for content in contents for one in answer.feed(_said(content))]
            if said:
                yield said
        yield list(answer.end())


def _said(content: bytes) -> Completion:
    chunk = completion(content)
    if chunk.error is not None:
        raise errors.of_event(chunk.error, None)
    return chunk


def _event(content: bytes) -> _Event:
    try:
        return msgspec.json.decode(content, type=_Event)
    except (ValueError, RecursionError) as error:
        raise BackendUnavailable("the engine's answer cannot be read") from error


def _ended(details: _Details) -> End:
    reason: FinishReason = "length" if details.finish_reason == "length" else "stop"
    return End(reason=reason, prompt_tokens=details.input_length, tokens=details.generated_tokens)


def _parameters(generation: Generation) -> dict[str, object]:
    """Greedy unless a temperature is asked for, which must then be above 0."""
    grammar = None
    if isinstance(generation.constraint, JsonObject):
        grammar = chat.grammar(generation.constraint.schema)
    fields = chat.sampled(generation.sampling, grammar is not None)
    fields["max_new_tokens"] = fields.pop("max_tokens")
    if not _draws(generation.sampling):
        fields = {name: fields[name] for name in fields if name not in ("temperature", "top_p")}
    return {
        "details": True,
        "do_sample": _draws(generation.sampling),
        **fields,
        **_adapter(generation.adapter),
        **({"grammar": grammar} if grammar else {}),
    }


def _draws(sampling: Sampling) -> bool:
    return sampling.temperature > 0


def _adapter(adapter: str | None) -> dict[str, object]:
    return {} if adapter is None else {"adapter_id": adapter}
