"""The rules of deploy/proxy.conf, in nginx: what gets through to the server, and what a client sees without one."""

from __future__ import annotations

import http.client
import re
import socket
import subprocess
import time
from collections.abc import Iterator
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path

import pytest

from tests import nginx
from tests.nginx import Names, StandIn
from tests.server import Server, picture

TINY = {"prompt": "猫", "seed": 1}


@dataclass
class Proxied:
    """The address of a proxy, the name server that it asks, and the server behind it."""

    url: str
    names: Names
    server: StandIn

    def code(self, method: str, path: str, body: bytes | None = None) -> int:
        """Make one request with exactly this path. Returns the status code."""
        connection = http.client.HTTPConnection(self.url.partition("//")[2], timeout=30)
        connection.request(method, path, body)
        code = connection.getresponse().status
        connection.close()
        return code

    def connect(self) -> socket.socket:
        host, port = self.url.partition("//")[2].split(":")
        return socket.create_connection((host, int(port)), timeout=30)


@pytest.fixture(scope="module")
def proxied(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Proxied]:
    with ExitStack() as stack:
        names, server = Names(), StandIn()
        stack.callback(names.server_close)
        stack.callback(names.shutdown)
        url = stack.enter_context(nginx.proxy(tmp_path_factory.mktemp("nginx"), names, server.port))
        proxied = Proxied(url, names, server)
        yield proxied
        proxied.server.stop()


@pytest.fixture
def behind(tiny_server: Server, tmp_path: Path) -> Iterator[Server]:
    """The shared server with the tiny model, as a client sees it through the proxy."""
    with nginx.proxy(tmp_path, Names(), int(tiny_server.url.rpartition(":")[2])) as url:
        yield Server(url, tiny_server.process, tiny_server.log_file)


def test_nginx_takes_the_file_as_it_is(tmp_path):
    done = subprocess.run(nginx.command(tmp_path, nginx.RULES.read_text(), "-t"), capture_output=True, text=True)
    assert done.returncode == 0, done.stderr


def test_the_server_draws_and_answers_through_the_proxy(behind):
    assert behind.health()["status"] == "READY"
    assert behind.call("GET", "/openapi.json")[1]["info"]["title"] == "Cog"
    prediction = behind.predict(**TINY)
    assert picture(prediction["output"][0]).size == (64, 64)
    assert re.fullmatch("[0-9a-f]{32}", prediction["id"])  # the proxy's
    assert behind.ask(TINY, "my-Id_1")["id"] == "my-Id_1"


def test_a_post_can_not_name_a_prediction(behind):
    assert behind.call("POST", "/predictions", {"id": "running", "input": TINY})[0] == 422


def test_a_prediction_is_canceled_through_the_proxy(behind):
    running = behind.begin(**TINY, num_inference_steps=500)
    running.wait_for("2/500 [")
    assert running.cancel() == 200
    assert running.result()["status"] == "canceled"


@pytest.mark.parametrize(
    ("method", "path", "arrives_as"),
    [
        ("GET", "/health-check?x=1", r"/health-check"),
        ("GET", "/openapi.json", r"/openapi.json"),
        ("POST", "/predictions", r"/predictions/[0-9a-f]{32}"),
        ("PUT", "/predictions/abc-DEF_123", r"/predictions/abc-DEF_123"),
        ("PUT", "/predictions/" + "a" * 64, r"/predictions/a{64}"),
        ("POST", "/predictions/abc/cancel", r"/predictions/abc/cancel"),
    ],
)
def test_what_clients_need_gets_through(proxied, method, path, arrives_as):
    assert proxied.code(method, path, b"{}" if method != "GET" else None) == 200
    arrived, where, length = proxied.server.seen[-1]
    assert arrived == ("PUT" if path == "/predictions" else method)
    assert re.fullmatch(arrives_as, where)
    assert length == (0 if method == "GET" else 2)


@pytest.mark.parametrize(
    ("method", "path"),
    [
        ("POST", "/shutdown"),
        ("POST", "/SHUTDOWN"),
        ("POST", "//shutdown"),
        ("POST", "/predictions/a/../../shutdown"),
        ("GET", "/"),
        ("POST", "/health-check"),
        ("GET", "/predictions"),
        ("PUT", "/predictions"),
        ("POST", "/predictions/"),
        ("GET", "/predictions/abc"),
        ("POST", "/predictions/abc"),
        ("DELETE", "/predictions/abc"),
        ("GET", "/predictions/abc/cancel"),
        ("PUT", "/predictions/.."),
        ("PUT", "/predictions/../../x"),
        ("PUT", "/predictions/..%2F..%2Fx"),
        ("PUT", "/predictions/%2Ftmp%2Fx"),
        ("PUT", "/predictions/a/b"),
        ("PUT", "/predictions/" + "a" * 65),
        ("PUT", "/predictions/" + "a" * 300),
        ("PUT", "/predictions/a%00b"),
        ("PUT", "/predictions/a%0A"),
        ("POST", "/predictions/a/cancel%0A"),
        ("PUT", "/predictions/%E7%8C%AB"),
    ],
)
def test_nothing_else_gets_through(proxied, method, path):
    before = len(proxied.server.seen)
    assert proxied.code(method, path, b"{}") in (400, 403, 404)
    assert len(proxied.server.seen) == before


def test_a_body_too_large_is_refused_before_it_is_sent(proxied):
    before = len(proxied.server.seen)
    with proxied.connect() as client:
        client.sendall(b"POST /predictions HTTP/1.1\r\nhost: x\r\ncontent-length: %d\r\n\r\n" % (64 * 2**20 + 1))
        assert client.recv(1000).startswith(b"HTTP/1.1 413 ")
    assert len(proxied.server.seen) == before


def test_a_body_larger_than_memory_for_it_arrives_whole(proxied):
    assert proxied.code("POST", "/predictions", bytes(2**21)) == 200
    assert proxied.server.seen[-1][2] == 2**21


def test_a_slow_client_occupies_the_server_only_when_its_request_is_whole(proxied):
    before = len(proxied.server.seen)
    with proxied.connect() as client:
        client.sendall(b"POST /predictions HTTP/1.1\r\nhost: x\r\ncontent-length: 4\r\n\r\n")
        for byte in (b"{", b" ", b" "):
            client.sendall(byte)
            time.sleep(0.2)
        assert len(proxied.server.seen) == before
        client.sendall(b"}")
        assert client.recv(1000).startswith(b"HTTP/1.1 200 ")
    assert proxied.server.seen[-1][2] == 4


def test_a_client_that_stops_sending_is_cut_off_and_never_reaches_the_server(proxied):
    before = len(proxied.server.seen)
    with proxied.connect() as client:
        client.sendall(b"POST /predictions HTTP/1.1\r\nhost: x\r\ncontent-length: 4\r\n\r\n{")
        assert client.recv(1000) == b""
    assert len(proxied.server.seen) == before


def test_a_server_that_comes_back_under_another_address_is_found(proxied):
    assert proxied.code("GET", "/health-check") == 200
    proxied.server.stop()
    assert proxied.code("GET", "/health-check") == 502
    proxied.names.address = None
    assert_becomes(proxied, 502)
    proxied.server = StandIn("127.0.0.2", proxied.server.port)
    proxied.names.address = "127.0.0.2"
    assert_becomes(proxied, 200)


def test_a_proxy_that_starts_before_the_server_finds_it_later(tmp_path):
    server, names = StandIn(), Names(None)
    with nginx.proxy(tmp_path, names, server.port) as url:
        proxied = Proxied(url, names, server)
        assert proxied.code("GET", "/health-check") == 502
        names.address = "127.0.0.1"
        assert_becomes(proxied, 200)
    server.stop()


def assert_becomes(proxied: Proxied, code: int) -> None:
    """Ask until the proxy answers with this code, for ten seconds at most."""
    end = time.monotonic() + 10
    while (found := proxied.code("GET", "/health-check")) != code and time.monotonic() < end:
        time.sleep(0.1)
    assert found == code
