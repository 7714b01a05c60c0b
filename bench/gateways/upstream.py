"""Upstreams that are far faster than what is measured: nginx for whole answers, this for streams.

    python -m bench.gateways.upstream PORT ANSWER WAIT_MS GAP_MS

Prints nothing; answers on 127.0.0.1 once the port is open. ANSWER is `text` or `call`; a request
that asks for no stream gets the whole answer. A client of ours or a gateway's is trusted here:
heads are searched, not parsed.
"""

from __future__ import annotations

import asyncio
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import cast

import uvloop

from bench.gateways.bodies import CALL, COMPLETION, MODEL, TEXT

_MODELS = b'{"object":"list","data":[{"id":"%s","object":"model"}]}' % MODEL.encode()


def whole(content: bytes) -> bytes:
    """A 200 with this JSON."""
    head = b"HTTP/1.1 200 OK\r\ncontent-type: application/json\r\ncontent-length: %d\r\n\r\n"
    return head % len(content) + content


_STREAM_HEAD = (
    b"HTTP/1.1 200 OK\r\ncontent-type: text/event-stream\r\ntransfer-encoding: chunked\r\n\r\n"
)


def _framed(events: Sequence[bytes]) -> list[bytes]:
    """Each event as a chunk of its own, the last one with the end of the body."""
    chunks = [b"%x\r\n%s\r\n" % (len(event), event) for event in events]
    return [*chunks[:-1], chunks[-1] + b"0\r\n\r\n"]


class Answers(asyncio.Protocol):
    """One connection: a request at a time, answered without looking at more than it takes."""

    def __init__(self, chunks: list[bytes], wait_s: float, gap_s: float) -> None:
        self._chunks = chunks
        self._burst = _STREAM_HEAD + b"".join(chunks)
        self._wait_s = wait_s
        self._gap_s = gap_s
        self._received = b""
        self.transport: asyncio.Transport

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self.transport = cast("asyncio.Transport", transport)

    def data_received(self, received: bytes) -> None:
        self._received += received
        body_at = self._received.find(b"\r\n\r\n") + 4
        if body_at < 4:
            return
        head = self._received[:body_at].lower()
        if self._is_whole(head, body_at):
            request, self._received = self._received, b""
            self.answer(head, request[body_at:])

    def _is_whole(self, head: bytes, body_at: int) -> bool:
        if b"transfer-encoding: chunked" in head:
            return self._received.endswith(b"0\r\n\r\n")
        at = head.find(b"content-length:")
        size = int(head[at + 15 : head.index(b"\r\n", at)]) if at >= 0 else 0
        return len(self._received) >= body_at + size

    def answer(self, head: bytes, body: bytes) -> None:
        """Answer a request; `head` is in lower case."""
        if head.startswith(b"get "):
            self.transport.write(whole(_MODELS))
        elif self._wait_s:
            asyncio.get_running_loop().call_later(self._wait_s, self._say, body)
        else:
            self._say(body)

    def _say(self, body: bytes) -> None:
        if b'"stream":true' not in body and b'"stream": true' not in body:
            self.transport.write(whole(COMPLETION))
        elif self._gap_s:
            self.transport.write(_STREAM_HEAD + self._chunks[0])
            self._next(1)
        else:
            self.transport.write(self._burst)

    def _next(self, number: int) -> None:
        if number < len(self._chunks) and not self.transport.is_closing():
            loop = asyncio.get_running_loop()
            loop.call_later(self._gap_s, self._write, number)

    def _write(self, number: int) -> None:
        self.transport.write(self._chunks[number])
        self._next(number + 1)


async def _serve(port: int, events: Sequence[bytes], wait_s: float, gap_s: float) -> None:
    loop, chunks = asyncio.get_running_loop(), _framed(events)
    server = await loop.create_server(lambda: Answers(chunks, wait_s, gap_s), "127.0.0.1", port)
    await server.serve_forever()


def nginx_of_answers(port: int, directory: Path) -> Path:
    """Settings of an nginx that answers at once, whatever it is asked."""
    return _settings(
        directory / f"upstream-{port}.conf",
        directory,
        f"""
  server {{
    listen 127.0.0.1:{port} backlog=1024;
    default_type application/json;
    location / {{ return 200 '{_quoted(COMPLETION)}'; }}
    location /v1/models {{ return 200 '{_quoted(_MODELS)}'; }}
    location /health {{ return 200 '{{}}'; }}
  }}""",
    )


def _quoted(content: bytes) -> str:
    """As nginx takes it between single quotes."""
    return content.decode().replace("\\", "\\\\")


def nginx_as_gateway(port: int, upstream: int, directory: Path) -> Path:
    """Settings of an nginx that passes everything on over connections that it keeps."""
    return _settings(
        directory / f"gateway-{port}.conf",
        directory,
        f"""
  upstream there {{ server 127.0.0.1:{upstream}; keepalive 512; keepalive_requests 1000000; }}
  server {{
    listen 127.0.0.1:{port} backlog=1024;
    location / {{
      proxy_pass http://there; proxy_http_version 1.1; proxy_set_header Connection "";
      proxy_buffering off; client_body_buffer_size 64k;
    }}
  }}""",
    )


def _settings(path: Path, directory: Path, servers: str) -> Path:
    path.write_text(f"""
worker_processes 1; daemon off; error_log stderr crit; pid {path}.pid;
events {{ worker_connections 4096; }}
http {{
  access_log off; keepalive_requests 1000000; keepalive_timeout 75s; tcp_nodelay on;
  client_body_temp_path {directory}/body; proxy_temp_path {directory}/proxied;
  fastcgi_temp_path {directory}/f; uwsgi_temp_path {directory}/u; scgi_temp_path {directory}/s;
  {servers}
}}
""")
    return path


if __name__ == "__main__":
    _port, _kind, _wait_ms, _gap_ms = sys.argv[1:]
    uvloop.run(
        _serve(
            int(_port),
            {"text": TEXT, "call": CALL}[_kind],
            float(_wait_ms) / 1000,
            float(_gap_ms) / 1000,
        )
    )
