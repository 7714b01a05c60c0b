"""An S3 server of this machine, on a real socket, that can go away and come back."""

from __future__ import annotations

import http.client
import logging
import secrets
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, replace
from typing import Any

from moto.moto_server.werkzeug_app import (
    DomainDispatcherApplication,
    MotoRequestHandler,
    create_backend_app,
)
from moto.server import ThreadedMotoServer
from werkzeug.serving import make_server

from proxy.record.archive import BucketArchive


class Server(ThreadedMotoServer):
    """Takes one request at a time: S3's conditional puts are atomic, and moto looks and puts in two
    steps between which another request could come."""

    def _server_entry(self) -> None:
        moto, alone = DomainDispatcherApplication(create_backend_app), threading.Lock()

        def app(environ: Any, start: Any) -> list[bytes]:
            with alone:
                return list(moto(environ, start))

        address = (self._ip_address, self._port)
        self._server = make_server(*address, app, True, request_handler=MotoRequestHandler)
        self._server_ready_event.set()
        self._server.serve_forever()


@dataclass
class Bucket:
    """A bucket that exists."""

    port: int
    name: str
    server: ThreadedMotoServer
    prefix: str = "some/prefix"

    @property
    def url(self) -> str:
        return f"s3://{self.name}/{self.prefix}"

    def empty(self) -> Bucket:
        """A prefix of its own: a server takes half a second to stop."""
        return replace(self, prefix=f"prefix-{secrets.token_hex(4)}")

    @property
    def options(self) -> dict[str, str]:
        return {
            "endpoint": f"http://127.0.0.1:{self.port}",
            "region": "us-east-1",
            "access_key_id": "test",
            "secret_access_key": "test",
        }

    @property
    def archive(self) -> BucketArchive:
        return BucketArchive(self.url, self.options)

    def stop(self) -> None:
        """Nobody listens any more; what is stored stays."""
        self.server.stop()

    def start(self) -> None:
        self.server = Server("127.0.0.1", self.port, verbose=False)
        self.server.start()


@contextmanager
def bucket() -> Iterator[Bucket]:
    """A new, empty bucket."""
    logging.getLogger("werkzeug").setLevel(logging.ERROR)
    server = Server("127.0.0.1", 0, verbose=False)
    server.start()
    _, port = server.get_host_and_port()
    name = f"bucket-{secrets.token_hex(4)}"
    connection = http.client.HTTPConnection("127.0.0.1", port, timeout=10)
    connection.request("PUT", f"/{name}")
    assert connection.getresponse().status == 200
    made = Bucket(port, name, server)
    try:
        yield made
    finally:
        made.stop()
