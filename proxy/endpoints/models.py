"""GET /v1/models and /v1/models/{id}: the names that clients may ask for."""

from __future__ import annotations

from collections.abc import Sequence

import msgspec
from starlette.types import Receive, Scope, Send

from proxy.auth import Authenticator
from proxy.endpoints import caller_of, send_json
from proxy.errors import UnknownModel


class Model(msgspec.Struct, frozen=True):
    id: str
    created: int
    """Seconds since the epoch; when the server started, as names have no age of their own."""
    object: str = "model"
    owned_by: str = "headrace"


class ModelList(msgspec.Struct, frozen=True):
    data: list[Model]
    object: str = "list"


class Models:
    """Raw ASGI endpoint for the list and for each of its entries."""

    def __init__(self, names: Sequence[str], auth: Authenticator, started_at: int) -> None:
        self._models = {name: Model(name, started_at) for name in names}
        self._auth = auth

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        allowed = caller_of(scope, self._auth).models
        models = {n: m for n, m in self._models.items() if allowed is None or n in allowed}
        name = scope["path_params"].get("id")
        if name is None:
            await send_json(send, ModelList(list(models.values())))
        elif name in models:
            await send_json(send, models[name])
        else:
            raise UnknownModel(f"The model {name!r} does not exist here", "model")
