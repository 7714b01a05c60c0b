"""Azure's paths: served as the ones that they stand for, without a redirect, which would cost the
client its key.

    /openai/deployments/{deployment}/chat/completions   /v1/chat/completions, deployment = model
    /openai/v1/files                                    /v1/files
    /openai/files?api-version=2024-10-21                /v1/files

Source: Azure OpenAI REST API reference. `api-version` is taken for what it asks: the one API that
is here.
"""

from __future__ import annotations

import re
from collections.abc import Awaitable
from typing import NamedTuple
from urllib.parse import unquote

from starlette.types import ASGIApp, Receive, Scope, Send

_DEPLOYMENT = re.compile(r"/openai/deployments/(?P<deployment>[^/]+)(?P<rest>/.+)")
_PLAIN = re.compile(r"/openai(?:/v1)?(?P<rest>/.+)")
_VERSION = re.compile(rb"(?:^|&)api-version=[^&]*")


class Place(NamedTuple):
    """What an Azure path stands for."""

    path: str
    """Percent-encoded, as it came."""
    deployment: str | None


def place(raw_path: str) -> Place | None:
    """What a path, percent-encoded, stands for; None when it is none of Azure's."""
    found = _DEPLOYMENT.fullmatch(raw_path)
    if found is not None:
        return Place("/v1" + found["rest"], unquote(found["deployment"]))
    found = _PLAIN.fullmatch(raw_path)
    return None if found is None else Place("/v1" + found["rest"], None)


class AzurePaths:
    """Pure ASGI, around the router: it sees OpenAI's paths only."""

    def __init__(self, app: ASGIApp) -> None:
        self._app = app

    def __call__(self, scope: Scope, receive: Receive, send: Send) -> Awaitable[None]:
        if scope["type"] == "http" and scope["path"].startswith("/openai/"):
            scope = _openai_s(scope)
        return self._app(scope, receive, send)


def _openai_s(scope: Scope) -> Scope:
    # The undecoded path: a "/" inside of a deployment's name is a part of the name.
    found = place(scope["raw_path"].decode("ascii"))
    if found is None:
        return scope
    query = _VERSION.sub(b"", scope["query_string"]).removeprefix(b"&")
    return {
        **scope,
        "path": unquote(found.path).rstrip("/"),
        "raw_path": found.path.encode("ascii"),
        "query_string": query,
        "state": {**scope["state"], "deployment": found.deployment},
    }
