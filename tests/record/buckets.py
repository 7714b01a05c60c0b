"""An S3 server of this machine, on a real socket, that can go away and come back."""

from __future__ import annotations

import http.client
import logging
import secrets
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass

from moto.server import ThreadedMotoServer

from proxy.record.archive import BucketArchive


@dataclass
class Bucket:
    """A bucket that exists."""

    port: int
    name: str
    server: ThreadedMotoServer

    @property
    def url(self) -> str:
        return f"s3://{self.name}/some/prefix"

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
        self.server = ThreadedMotoServer("127.0.0.1", self.port, verbose=False)
        self.server.start()


@contextmanager
def bucket() -> Iterator[Bucket]:
    """A new, empty bucket."""
    logging.getLogger("werkzeug").setLevel(logging.ERROR)
    server = ThreadedMotoServer("127.0.0.1", 0, verbose=False)
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
