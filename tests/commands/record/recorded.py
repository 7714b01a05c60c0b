"""A record of both forms, and commands on it."""

from __future__ import annotations

from pathlib import Path

from proxy.__main__ import main

ROUTES = """
version: 1
models: [m]
backends: {cloud: {kind: openai, base_url: 'http://127.0.0.1:1/v1'}}
domains: {all: {plan: [cloud]}}
defaults: {tools: all, chat: all}
record: {directory: record, keep_days: 1000}
"""


def run(routes: Path, *arguments: str) -> int:
    return main(["record", *arguments, "--config", str(routes)])
