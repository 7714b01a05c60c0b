from __future__ import annotations

import msgspec
import pytest

from proxy.account import check_body, check_path
from proxy.auth import Caller
from proxy.errors import Forbidden

OTHER = Caller("acme", "shop")
OWNER = Caller("acme", "shop", has_account=True)
KEPT = [
    ({"previous_response_id": "resp_1"}, "previous_response_id"),
    ({"conversation": {"id": "conv_1"}}, "conversation"),
    ({"prompt": {"id": "pmpt_1"}}, "prompt"),
    ({"store": True}, "store"),
    ({"messages": [{"content": [{"type": "file", "file": {"file_id": "file-1"}}]}]}, "file_id"),
    ({"tools": [{"type": "file_search", "vector_store_ids": ["vs_1"]}]}, "vector_store_ids"),
    ({"tools": [{"type": "code_interpreter", "container": "cntr_1"}]}, "container"),
    ({"tools": [{"container": {"type": "auto", "file_ids": ["file-1"]}}]}, "file_ids"),
    ({"input": [{"type": "item_reference", "id": "msg_1"}]}, "item_reference"),
    ({"input": [{"id": "msg_1"}]}, "item_reference"),
    ({"input": [{"id": "msg_1", "type": None}]}, "item_reference"),
    ({"input": [{"id": "ig_1", "type": "image_generation_call"}]}, "item_reference"),
    ({"messages": [{"role": "assistant", "audio": {"id": "audio_1"}}]}, "audio.id"),
    ({"audio": {"voice": {"id": "voice_1"}, "format": "wav"}}, "voice.id"),
    ({"input": "Say this", "voice": {"id": "voice_1"}}, "voice.id"),
    ({"images": [{"file_id": "file-1"}], "prompt": "bluer"}, "file_id"),
    ({"tools": [{"type": "mcp", "tunnel_id": "tunnel_1"}]}, "tunnel_id"),
    (
        {"tools": [{"environment": {"skills": [{"type": "skill_reference", "skill_id": "s"}]}}]},
        "skill_id",
    ),
]
FREE = [
    {"prompt": "Say this"},
    {"store": False},
    {"metadata": {"conversation": "mine"}},
    {"audio": {"voice": "alloy", "format": "wav"}},
    {"input": [{"id": "msg_1", "role": "assistant", "content": "hi"}]},
    {"input": [{"id": "fc_1", "type": "function_call", "call_id": "c", "name": "f"}]},
    {"input": [{"id": "ig_1", "type": "image_generation_call", "result": "aGk="}]},
    {"messages": [{"role": "assistant", "tool_calls": [{"id": "call_1", "function": {}}]}]},
    {"tools": [{"function": {"parameters": {"properties": {"file_id": {"type": "string"}}}}}]},
    {"tools": [{"function": {"parameters": {"required": ["file_id", "container"]}}}]},
]


@pytest.mark.parametrize(("body", "named"), KEPT)
def test_references_to_what_is_kept_are_for_the_account_s_tenants(body, named):
    with pytest.raises(Forbidden) as caught:
        check_body(OTHER, msgspec.json.encode(body))

    assert caught.value.param == named
    check_body(OWNER, msgspec.json.encode(body))


@pytest.mark.parametrize("body", FREE)
def test_what_refers_to_nothing_passes(body):
    check_body(OTHER, msgspec.json.encode(body))


def test_escapes_hide_no_reference():
    with pytest.raises(Forbidden):
        check_body(OTHER, rb'{"input": [{"file\u005fid": "file-1"}]}')


def test_nesting_hides_no_reference():
    deep = b'{"a":' * 70 + b'{"file_id":"x"}' + b"}" * 70

    with pytest.raises(Forbidden):
        check_body(OTHER, deep)


@pytest.mark.parametrize(
    ("method", "path"),
    [
        ("GET", "/files"),
        ("POST", "/files"),
        ("GET", "/responses/resp_1"),
        ("GET", "/chat/completions"),
        ("DELETE", "/chat/completions/chatcmpl-1"),
        ("POST", "/batches"),
        ("GET", "/audio/speech"),
        ("POST", "/audio/../files"),
        ("POST", "/images/edits/x"),
        ("POST", "/audio/voices"),
        ("POST", "/audio/voice_consents"),
    ],
)
def test_paths_of_what_is_kept_are_for_the_account_s_tenants(method, path):
    with pytest.raises(Forbidden):
        check_path(OTHER, method, path)
    check_path(OWNER, method, path)


@pytest.mark.parametrize("path", ["/audio/transcriptions", "/images/generations", "/moderations"])
def test_paths_that_keep_nothing_are_everybody_s(path):
    check_path(OTHER, "POST", path)
