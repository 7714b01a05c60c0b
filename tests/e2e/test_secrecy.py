"""Keys, addresses and card numbers are planted everywhere; not a byte of them reaches the disk."""

from __future__ import annotations

from pathlib import Path

import msgspec
import pytest
import zstandard

from proxy.protocol.segments import read, read_segment, segments
from tests.scripted import ScriptedCloud, answer, chunk, completion, stream
from tests.serving import serving, settings
from tests.wire import send

CLIENT_KEY = "client-key-without-a-pattern"
CLOUD_KEY = "cloud key without a pattern"
PLANTED = {
    "key": "sk-proj-PlantedPlantedPlanted",
    "email": "planted.person@planted.example",
    "card": "4111 1111 1111 1111",
    "iban": "DE89 3704 0044 0532 0130 00",
    "phone": "+49 30 5550123",
}
ALL = "; ".join(PLANTED.values())
NEEDLES = [
    b"PlantedPlanted",
    b"planted.person",
    b"planted.example",
    b"4111 1111",
    b"411111",
    b"Hunter2-",
    b"0044 0532",
    b"5550123",
    CLIENT_KEY.encode(),
    CLOUD_KEY.encode(),
]


def planted_body(is_streamed: bool) -> bytes:
    arguments = msgspec.json.encode({"note": ALL, ALL: [ALL], "card": 4111111111111111}).decode()
    call = {
        "id": f"call {ALL}",
        "type": "function",
        "function": {"name": "f", "arguments": arguments},
    }
    body = {
        "model": "gpt-4o",
        "stream": is_streamed,
        "user": ALL,
        "metadata": {"conversation_id": ALL, ALL: ALL},
        "messages": [
            {"role": "system", "content": ALL, "name": "x"},
            {"role": "user", "content": [{"type": "text", "text": ALL}, {"type": "odd", "x": ALL}]},
            {"role": "assistant", "content": None, "tool_calls": [call]},
            {"role": "tool", "tool_call_id": f"call {ALL}", "content": arguments},
        ],
        "tools": [
            {
                "type": "function",
                "function": {
                    "name": "f",
                    "description": ALL,
                    "parameters": {"type": "object", "properties": {ALL: {"default": ALL}}},
                },
            }
        ],
        "unknown": {"deep": [[{"in": [ALL, arguments]}]], "password": "Hunter2-planted"},
        "stop": [ALL],
    }
    return msgspec.json.encode(body)


def said() -> dict[str, object]:
    arguments = msgspec.json.encode({"to": ALL, "card": 4111111111111111}).decode()
    call = {"index": 0, "id": ALL, "type": "function"}
    return {
        "role": "assistant",
        "content": ALL,
        "refusal": ALL,
        "tool_calls": [call | {"function": {"name": "f", "arguments": arguments}}],
    }


def pieces() -> list[object]:
    """The same answer, cut so that no piece holds a whole secret."""
    whole = msgspec.json.encode(said()["tool_calls"][0]["function"]["arguments"]).decode()[1:-1]
    arguments = msgspec.json.decode(f'"{whole}"')
    start = {"index": 0, "id": ALL, "type": "function", "function": {"name": "f", "arguments": ""}}
    return [
        *(chunk({"content": ALL[at : at + 3]}) for at in range(0, len(ALL), 3)),
        chunk({"tool_calls": [start]}),
        *(
            chunk({"tool_calls": [{"index": 0, "function": {"arguments": arguments[at : at + 5]}}]})
            for at in range(0, len(arguments), 5)
        ),
        chunk({}, "tool_calls"),
    ]


def bytes_on_disk(directory: Path) -> bytes:
    """All bytes of all files, and what is compressed in them."""
    raw = b"".join(path.read_bytes() for path in directory.rglob("*") if path.is_file())
    records = [msgspec.json.encode(one) for p in segments(directory) for one in read_segment(p)]
    return b"".join([raw, *records])


@pytest.mark.parametrize("is_streamed", [False, True])
async def test_nothing_planted_reaches_the_disk(
    cloud: ScriptedCloud, tmp_path: Path, is_streamed: bool
):
    cloud.plays(*(stream(*pieces()) if is_streamed else [answer(completion(said(), "tool_calls"))]))
    config = settings(
        f"cloud={cloud.base_url}",
        extra=f"record: {{directory: '{tmp_path}'}}\nauth: {{keys: [{{key: {CLIENT_KEY}}}]}}",
    )
    headers = {
        "authorization": f"Bearer {CLIENT_KEY}",
        "x-request-id": "planted.person@planted.example",
        "x-headrace-conversation": ALL,
        "cookie": ALL,
    }
    feedback = {"conversation_id": ALL, "kind": "comment", "value": f"{ALL} {CLIENT_KEY}"}

    async with serving(config) as url:
        response = await send("POST", f"{url}/chat/completions", planted_body(is_streamed), headers)
        await send("POST", f"{url}/feedback", msgspec.json.encode(feedback), headers)

    found = bytes_on_disk(tmp_path)
    assert response.status == 200
    (exchange,) = read(tmp_path)
    assert exchange.outcome == "completed"
    assert exchange.attempts[0].answer.text.count("<") == len(PLANTED)
    assert found.count(b"feedback-") > 0
    assert [needle for needle in NEEDLES if needle in found] == []


def test_needles_would_be_found():
    hay = zstandard.compress(planted_body(False))

    assert b"PlantedPlanted" in zstandard.decompress(hay)
