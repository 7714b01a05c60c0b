from __future__ import annotations

import asyncio
import os
import signal
import socket

import pytest

from proxy.app import assemble
from proxy.backends.base import Text
from proxy.catalog import Catalog
from proxy.errors import BadConfig, PortInUse
from proxy.server import Server, address, bind
from tests.scripted import Pause
from tests.serving import Engine, finish, settings
from tests.wire import ask


def test_port_in_use_is_told_with_the_remedy():
    with bind("127.0.0.1", 0) as first:
        first.listen()
        port = first.getsockname()[1]

        with pytest.raises(PortInUse, match=rf"127\.0\.0\.1:{port} is in use; .* --port"):
            bind("127.0.0.1", port)


async def test_no_answer_waits_for_an_acknowledgement():
    accepted = asyncio.get_running_loop().create_future()

    class Accepting(asyncio.Protocol):
        def connection_made(self, transport: asyncio.BaseTransport) -> None:
            accepted.set_result(transport.get_extra_info("socket"))

    with bind("127.0.0.1", 0) as bound:
        loop = asyncio.get_running_loop()
        server = await loop.create_server(Accepting, sock=bound)
        _, writer = await asyncio.open_connection(*bound.getsockname())
        connection = await accepted
        nodelay = connection.getsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY)
        writer.close()
        server.close()

    assert nodelay


def test_address_of_another_machine_is_told():
    with pytest.raises(BadConfig, match=r"cannot listen on 192\.0\.2\.1:0 .* --host"):
        bind("192.0.2.1", 0)


def test_name_that_is_no_host_is_told():
    with pytest.raises(BadConfig, match="cannot listen on no such host"):
        bind("no such host", 0)


def test_nobody_can_connect_before_the_server_is_ready():
    with bind("127.0.0.1", 0) as bound, pytest.raises(ConnectionRefusedError):
        socket.create_connection(bound.getsockname())


async def test_stop_signal_lets_a_request_finish():
    engine = Engine("local", [Pause(0.5), Text("done"), finish()])
    proxy = assemble(settings("local"), Catalog({"local": engine}, {}), None)
    ready = asyncio.Event()
    server = Server(proxy.app, grace_s=5, on_ready=ready.set, on_stop=proxy.draining.begin)

    with bind("127.0.0.1", 0) as bound:
        serving = asyncio.ensure_future(server.serve(sockets=[bound]))
        await ready.wait()
        asking = asyncio.ensure_future(ask(f"http://{address(bound)}/v1"))
        await engine.asked.wait()
        os.kill(os.getpid(), signal.SIGTERM)
        response = await asking
        await serving

    assert response.json["choices"][0]["message"]["content"] == "done"
    assert proxy.draining()
