"""Forty ways to get routes.yaml wrong: each is told with line, column, path and remedy."""

from __future__ import annotations

from pathlib import Path

import pytest

from proxy.__main__ import main

GOOD = """\
version: 1
models: [gpt-4o, small]
backends:
  local:
    kind: embedded
    base_model: smollm2-135m-instruct
    adapters: adapters
  cloud:
    kind: openai
    base_url: https://example.org/v1
    models: {small: gpt-4o-mini}
  farm:
    kind: vllm
    base_model: llama
    tokenizer: tok
    replicas: ["http://127.0.0.1:1"]
domains:
  book:
    tools: ["book_*", find]
    plan: [local, cloud]
    verify: enforce
    fallback: {when: [invalid], most: 2}
  chat:
    plan: [cloud]
defaults:
  tools: book
  chat: chat
record:
  directory: record
  level: full
auth:
  keys:
    - {key: 0123456789abcdef, tenant: acme}
limits:
  max_in_flight: 8
  quotas:
    - {per: tenant, requests_per_minute: 60}
"""

BROKEN = [
    ("version: 1", "version: 3", "1:10", "$.version", "known are: 1"),
    ("version: 1", "verson: 1", "1:1", "$", "did you mean `version`?"),
    ("models: [gpt-4o, small]", "models: []", "2:9", "$.models", "length"),
    ("models: [gpt-4o, small]", "models: gpt-4o", "2:9", "$.models", "Expected `array`"),
    ("models: [gpt-4o, small]", "models: [gpt-4o, 7]", "2:18", "$.models[1]", "Expected `str`"),
    ("models: [gpt-4o, small]\n", "", "1:1", "$", "missing required field `models`"),
    ("kind: embedded", "kind: embeded", "5:11", "$.backends.local.kind", "known are: azure"),
    ("    kind: openai\n", "", "8:3", "$.backends.cloud", "missing required field `kind`"),
    ("base_model: smoll", "basemodel: smoll", "6:5", "$.backends.local", "mean `base_model`?"),
    ("base_url:", "baseurl:", "10:5", "$.backends.cloud", "did you mean `base_url`?"),
    (
        "base_url: https://example.org/v1",
        "base_url: 7",
        "10:15",
        "$.backends.cloud.base_url",
        "str",
    ),
    ("{small: gpt-4o-mini}", "{small: 4}", "11:21", "$.backends.cloud.models.small", "str"),
    ("adapters: adapters", "memory_limit_mib: lots", "7:23", "$.backends.local.memory", "int"),
    ("    base_model: llama\n", "", "12:3", "$.backends.farm", "field `base_model`"),
    ("replicas:", "replicsa:", "16:5", "$.backends.farm", "did you mean"),
    ("plan: [local, cloud]", "plan: [local, clod]", "20:19", "$.domains.book.plan[1]", "'cloud'?"),
    ("plan: [local, cloud]", "plan: []", "20:11", "$.domains.book.plan", "name at least one"),
    ("plan: [local, cloud]", "plan: local", "20:11", "$.domains.book.plan", "Expected `array`"),
    ("plan: [local, cloud]", "plan: [local, local]", "20:19", "$.domains.book.plan[1]", "already"),
    ("plan: [local, cloud]", "plna: [local]", "20:5", "$.domains.book", "did you mean `plan`?"),
    ("    plan: [cloud]\n", "    verify: off\n", "23:3", "$.domains.chat", "field `plan`"),
    ("verify: enforce", "verify: enfroce", "21:13", "$.domains.book.verify", "mean `enforce`?"),
    ("verify: enforce", "samples: 99", "21:14", "$.domains.book.samples", "<= 16"),
    ("verify: enforce", "floor: 2", "21:12", "$.domains.book.floor", "2"),
    ("verify: enforce", "cache: {ttl: 5}", "21:13", "$.domains.book.cache", "mean `ttl_s`?"),
    ("[invalid]", "[invaild]", "22:23", "$.domains.book.fallback.when[0]", "mean `invalid`?"),
    ("most: 2", "most: -1", "22:39", "$.domains.book.fallback.most", ">= 0"),
    ("    verify: enforce\n", "    match: {}\n", "21:5", "$.domains.book.match", "defaults.chat"),
    ('"book_*", find', '"sha256:12"', "18:3", "$.domains.book", "64 hexadecimal"),
    ("plan: [cloud]", "tools: [find]\n    plan: [cloud]", "17:1", "$.domains", "belongs to both"),
    ("  chat: chat\n", "  chat: cat\n", "27:9", "$.defaults.chat", "did you mean 'chat'?"),
    ("  chat: chat\n", "", "25:1", "$.defaults", "missing required field `chat`"),
    ("level: full", "level: ful", "30:10", "$.record.level", "mean `full`?"),
    ("level: full", "keep_day: 3", "30:3", "$.record", "did you mean `keep_days`?"),
    ("key: 0123456789abcdef", "key: short", "33:7", "$.auth.keys[0]", "headrace keys new"),
    ("key: 0123456789abcdef", "hash: x", "33:7", "$.auth.keys[0]", "see `headrace keys`"),
    ("key: 0123456789abcdef", 'key: "${NOT_SET_9}"', "33:13", "$.auth.keys[0].key", "export it"),
    ("tenant: acme", "tenat: acme", "33:31", "$.auth.keys[0]", "did you mean `tenant`?"),
    ("tenant: acme", "expires: 2027-01-01T00:00:00", "33:7", "$.auth.keys[0]", "time zone"),
    ("max_in_flight: 8", "max_in_flight: 0", "35:18", "$.limits.max_in_flight", ">= 1"),
    ("per: tenant", "per: tenants", "37:13", "$.limits.quotas[0].per", "mean `tenant`?"),
    ("requests_per_minute", "request_per_minute", "37:21", "$.limits.quotas[0]", "requests_per_m"),
    ("models: [gpt-4o, small]", "models: [gpt-4o", "3:9", "", "expected ',' or ']'"),
    ("auth:", "limits:", "34:1", "", "the key 'limits' occurs twice"),
    ("  cloud:\n", "\tcloud:\n", "8:1", "", "tab character"),
]


@pytest.fixture(autouse=True)
def _good_is_good(tmp_path: Path, capsys: pytest.CaptureFixture[str]):
    (tmp_path / "good.yaml").write_text(GOOD)
    code = main(["check", str(tmp_path / "good.yaml")])
    assert (code, capsys.readouterr().err) == (0, "")


@pytest.mark.parametrize(("right", "wrong", "place", "path", "remedy"), BROKEN)
def test_mistake_is_told_with_its_place_and_remedy(
    right: str,
    wrong: str,
    place: str,
    path: str,
    remedy: str,
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
):
    assert GOOD.count(right) >= 1
    file = tmp_path / "routes.yaml"
    file.write_text(GOOD.replace(right, wrong, 1))

    code = main(["check", str(file)])

    told = capsys.readouterr().err
    assert code == 2
    assert told.count("\n") == 1
    line, column = place.split(":")
    assert told.startswith(
        (
            f"headrace: {file}:{line}:{column}: {path}",
            f"headrace: {file}: line {line}, column {column}",
        )
    )
    assert remedy in told


def test_there_are_forty():
    assert len(BROKEN) >= 40
