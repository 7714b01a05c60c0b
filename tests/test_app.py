from __future__ import annotations

from base64 import b64encode
from pathlib import Path

import pytest

from proxy.app import redactor
from proxy.config import parse
from proxy.errors import BadConfig
from proxy.protocol.sealing import Keyring, SealError
from proxy.protocol.segments import read
from proxy.record.settings import RecordSettings
from tests import scripted
from tests.scripted import ScriptedCloud, completion
from tests.serving import serving, settings
from tests.wire import ask


async def test_leaving_writes_what_is_left_to_record(cloud: ScriptedCloud, tmp_path: Path):
    cloud.plays(scripted.answer(completion({"role": "assistant", "content": "hi"})))
    record = f"record: {{directory: '{tmp_path}', sync_s: 60}}"

    async with serving(settings(f"cloud={cloud.base_url}", extra=record)) as url:
        await ask(url)

    assert [exchange.outcome for exchange in read(tmp_path)] == ["completed"]


async def test_record_that_cannot_be_written_is_no_client_s_problem(
    cloud: ScriptedCloud, tmp_path: Path
):
    cloud.plays(scripted.answer(completion({"role": "assistant", "content": "hi"})))
    (tmp_path / "file").write_text("in the way")
    record = f"limits: {{grace_s: 0.1}}\nrecord: {{directory: '{tmp_path / 'file'}'}}"

    async with serving(settings(f"cloud={cloud.base_url}", extra=record)) as url:
        response = await ask(url)

    assert response.status == 200


async def test_encrypted_record_is_read_with_its_key_only(cloud: ScriptedCloud, tmp_path: Path):
    cloud.plays(scripted.answer(completion({"role": "assistant", "content": "xyzzy"})))
    key = b64encode(b"k" * 32).decode()
    keys = f"encryption: {{use: one, keys: {{one: '{key}'}}}}"
    record = f"record: {{directory: '{tmp_path}', {keys}}}"

    async with serving(settings(f"cloud={cloud.base_url}", extra=record)) as url:
        await ask(url)

    (exchange,) = read(tmp_path, keyring=Keyring({"one": b"k" * 32}, "one"))
    assert exchange.attempts[0].answer.text == "xyzzy"
    with pytest.raises(SealError):
        list(read(tmp_path))


@pytest.mark.parametrize(
    ("encryption", "complaint"),
    [
        ("{use: one, keys: {one: c2hvcnQ=}}", "'one' is not 32 bytes"),
        ("{use: one, keys: {one: 'file:/nowhere'}}", "/nowhere: No such file"),
    ],
)
async def test_key_that_is_none_keeps_the_proxy_from_starting(
    tmp_path: Path, encryption: str, complaint: str
):
    record = f"record: {{directory: '{tmp_path}', encryption: {encryption}}}"

    with pytest.raises(BadConfig, match=complaint):
        async with serving(settings("cloud", extra=record)):
            pass


@pytest.mark.parametrize(
    "backend",
    [
        "kind: openai, base_url: 'http://a', api_key: plain words of ours",
        "kind: azure, endpoint: 'http://a', api_key: plain words of ours",
        "kind: azure, endpoint: 'http://a', entra: {identity: client_secret, tenant_id: t,"
        " client_id: c, client_secret: plain words of ours}",
        "kind: litellm, api_key: plain words of ours",
        "kind: vllm, replicas: ['http://a'], base_model: b, api_key: plain words of ours",
    ],
)
def test_key_of_any_backend_is_taken_out_of_the_record(backend: str, tmp_path: Path):
    config = parse(
        f"version: 1\nmodels: [m]\nbackends: {{one: {{{backend}}}}}\n"
        "domains: {all: {plan: [one]}}\ndefaults: {tools: all, chat: all}\n",
        tmp_path,
        {},
    )

    kept = redactor(RecordSettings(directory=tmp_path), config).redact_json(
        b'"It says: plain words of ours."', "conversation"
    )

    assert b"plain words" not in kept
