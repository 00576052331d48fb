"""Servers that can't start say why, and a server needs no other machine."""

import shutil
import threading
from collections.abc import Iterator
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import pytest
from PIL import Image

from tests.alike import assert_same
from tests.e2e.conftest import CAT
from tests.fakes import flip_last_bit
from tests.server import WEIGHTS, Server


def test_altered_weights_fail_the_setup_and_the_log_names_the_file(start, tmp_path):
    folder = Path(shutil.copytree(WEIGHTS, tmp_path / "weights"))
    file = next((folder / "unet").glob("*.safetensors"))
    flip_last_bit(file)
    server = start(JSD_WEIGHTS=str(folder))
    assert server.status() == "SETUP_FAILED"
    assert f"{file}: altered" in server.health()["setup"]["logs"]


def test_a_wrong_setting_fails_the_setup_and_the_log_names_the_setting(start):
    server = start(JSD_DTYPE="fp8")
    assert server.status() == "SETUP_FAILED"
    assert "JSD_DTYPE: 'fp8' was given; allowed are fp16, bf16, fp32" in server.health()["setup"]["logs"]


@dataclass
class Proxied:
    """A server whose requests to other machines all go to a proxy.

    `asked` holds the requests that the proxy got. `drawn` is the picture of `CAT`, and `asked_for_cat` the number of
    requests that the proxy had got by then.
    """

    server: Server
    asked: list[str]
    drawn: Image.Image = field(init=False)
    asked_for_cat: int = field(init=False)

    def __post_init__(self):
        self.drawn = self.server.draw(**CAT)[0]
        self.asked_for_cat = len(self.asked)


@pytest.fixture(scope="module")
def proxied(start) -> Iterator[Proxied]:
    asked: list[str] = []

    class Proxy(BaseHTTPRequestHandler):
        def handle_any(self) -> None:
            asked.append(f"{self.command} {self.path}")
            self.send_error(502)

        do_GET = do_HEAD = do_POST = do_PUT = do_CONNECT = handle_any

        def log_message(self, *_: object) -> None:
            pass

    with ThreadingHTTPServer(("127.0.0.1", 0), Proxy) as proxy:
        threading.Thread(target=proxy.serve_forever, daemon=True).start()
        names = ("http_proxy", "https_proxy", "HTTP_PROXY", "HTTPS_PROXY", "HF_ENDPOINT")
        # As in deploy/compose.yaml, the server's own address goes through the proxy too.
        server = start(**dict.fromkeys(names, f"http://127.0.0.1:{proxy.server_port}"), NO_PROXY="", no_proxy="")
        yield Proxied(server, asked)
        proxy.shutdown()


def test_nothing_is_fetched_from_other_machines(proxied):
    assert proxied.asked_for_cat == 0


def test_another_process_draws_the_same_picture(proxied, cat):
    assert_same(proxied.drawn, cat)


def test_a_webhook_can_not_shut_down_a_server_behind_a_proxy(proxied):
    """Without the proxy a client could make the server send a request to its own /shutdown."""
    server = proxied.server
    body = {"input": CAT, "webhook": f"{server.url}/shutdown"}
    assert server.call("POST", "/predictions", body)[0] == 200
    server.wait("the webhook", lambda: f"POST {server.url}/shutdown" in proxied.asked, seconds=60)
    assert server.process.poll() is None
    assert len(server.draw(**CAT)) == 1
