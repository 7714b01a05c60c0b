"""The files that pages are made with: ours, and those of others under their licences. In memory."""

from __future__ import annotations

import hashlib
from importlib.resources import files
from importlib.resources.abc import Traversable

from starlette.types import Send

from proxy.dashboard.frame import HEADERS
from proxy.endpoints import send_bytes
from proxy.errors import NotFound

_KINDS = {
    ".css": "text/css; charset=utf-8",
    ".js": "text/javascript; charset=utf-8",
    ".svg": "image/svg+xml",
}
_FOREVER = {**HEADERS, "cache-control": "public, max-age=31536000, immutable"}


class StaticFiles:
    """Sends them. Whoever asks: they say nothing of the traffic."""

    def __init__(self) -> None:
        self._contents = dict(_read(files("proxy.dashboard") / "static", ""))
        self.stamps = {name: _hash(content) for name, content in self._contents.items()}
        """Name → what its address ends with, so that it can be kept until it is another one."""

    async def send(self, send: Send, name: str) -> None:
        """One of them; raises NotFound."""
        content = self._contents.get(name)
        if content is None:
            raise NotFound(f"There is no file {name!r}.")
        kind = _KINDS[name[name.rindex(".") :]]
        await send_bytes(send, content, {"content-type": kind, **_FOREVER})


def _read(folder: Traversable, before: str) -> list[tuple[str, bytes]]:
    found: list[tuple[str, bytes]] = []
    for one in folder.iterdir():
        if one.is_dir():
            found += _read(one, f"{before}{one.name}/")
        elif one.name.endswith(tuple(_KINDS)):
            found.append((before + one.name, one.read_bytes()))
    return found


def _hash(content: bytes) -> str:
    return hashlib.sha256(content).hexdigest()[:12]
