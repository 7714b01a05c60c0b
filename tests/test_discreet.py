"""No secret of the settings shows in their `repr`, nor in that of what holds them."""

from __future__ import annotations

from pathlib import Path

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
