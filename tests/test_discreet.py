"""No secret shows: not in the `repr` of settings or of what holds them, not in a traceback."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

from proxy.config import parse

KEY = "c2VjcmV0LXNlY3JldC1zZWNyZXQtc2VjcmV0LXNlY3I="
TEXT = f"""
version: 1
models: [m]
backends:
  a: {{kind: openai, base_url: 'http://a/v1', api_key: SECRET-1}}
  b: {{kind: azure, endpoint: 'https://b', api_key: SECRET-2}}
  c: {{kind: azure, endpoint: 'https://c', entra: {{identity: client_secret, tenant_id: t,
       client_id: i, client_secret: SECRET-3}}}}
  d: {{kind: litellm, api_key: SECRET-4, options: {{aws_secret_access_key: SECRET-5}}}}
  e: {{kind: vllm, replicas: ['http://e:1'], base_model: m, tokenizer: t, api_key: SECRET-6}}
domains: {{all: {{plan: [a, b, c, d, e]}}}}
defaults: {{tools: all, chat: all}}
auth: {{keys: [{{key: SECRET-7-long-enough-for-a-key}}], database: 'postgresql://u:SECRET-8@h/d'}}
record:
  directory: r
  redact: {{key: SECRET-9}}
  archive: {{url: 's3://b/p', options: {{secret_access_key: SECRET-10}}}}
  encryption: {{use: k, keys: {{k: {KEY}}}}}
tracing: {{endpoint: 'http://t', headers: {{authorization: SECRET-11}}}}
limits: {{shared: {{url: 'redis://:SECRET-12@h'}}}}
"""


def test_no_secret_shows():
    shown = repr(parse(TEXT, Path("/nowhere"), {}))

    assert "SECRET" not in shown and KEY not in shown
    assert shown.count("'…'") == 14


def test_what_is_not_set_is_said_to_be_so():
    text = TEXT.replace(", api_key: SECRET-6", "")

    assert "api_key=None" in repr(parse(text, Path("/nowhere"), {}))


FAILS = """
import sys
import structlog
from proxy import logs

def ask(key):
    header = f"Bearer {key}"
    raise LookupError(len(header))

logs.configure()
try:
    ask(sys.argv[1])
except LookupError:
    structlog.get_logger().exception("request_failed")
"""


def told(stderr: int) -> None:
    """Run what fails, its errors going there."""
    command = [sys.executable, "-c", FAILS, "SECRET-0"]
    subprocess.run(command, stderr=stderr, check=True, cwd=Path(__file__).parents[1])


@pytest.mark.parametrize("terminal", [False, True])
def test_traceback_has_the_place_and_not_what_was_in_variables(terminal: bool):
    reading, writing = os.openpty() if terminal else os.pipe()

    told(writing)
    said = os.read(reading, 100_000).decode()
    os.close(reading)
    os.close(writing)

    assert "request_failed" in said and "LookupError" in said and "ask" in said
    assert "SECRET" not in said
