"""nginx with the rules of deploy/proxy.conf, in front of a server of the tests; a name server; a stand-in for Cog's."""

from __future__ import annotations

import shutil
import socket
import socketserver
import subprocess
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import pytest

RULES = Path(__file__).resolve().parent.parent / "deploy" / "proxy.conf"
NGINX = shutil.which("nginx") or shutil.which("nginx", path="/usr/sbin")
SHORT = {"valid=5s": "valid=1s", "client_body_timeout 30s": "client_body_timeout 1s"}  # so that tests need not wait
MAIN = """
daemon off;
master_process off;
pid pid;
events {}
http {
    access_log off;
    client_body_temp_path body;
    proxy_temp_path proxy;
    fastcgi_temp_path fastcgi;
    uwsgi_temp_path uwsgi;
    scgi_temp_path scgi;
    include rules;
}
"""


def command(folder: Path, rules: str, *options: str) -> list[str]:
    """Write nginx's configuration with these rules into the folder. Returns the command that runs nginx with it.

    Skips the test where there is no nginx.
    """
    if not NGINX:
        pytest.skip("nginx is not here; on Debian: apt-get install nginx-light")
    (folder / "nginx.conf").write_text(MAIN)
    (folder / "rules").write_text(rules)
    return [NGINX, "-p", str(folder), "-c", "nginx.conf", "-e", "stderr", *options]


@contextmanager
def proxy(folder: Path, names: Names, port: int) -> Iterator[str]:
    """Run nginx on a free port, and yield its address. It finds the server on `port` of the address in `names`."""
    with socket.create_server(("127.0.0.1", 0)) as free:
        own = free.getsockname()[1]
    rules = RULES.read_text()
    places = {"8080": f"127.0.0.1:{own}", "127.0.0.11": f"127.0.0.1:{names.port}", "jsd:5000": f"jsd:{port}"}
    for before, after in (SHORT | places).items():
        assert rules.count(before) == 1, before
        rules = rules.replace(before, after)
    process = subprocess.Popen(command(folder, rules))
    try:
        wait_for_port(own, process)
        yield f"http://127.0.0.1:{own}"
    finally:
        process.terminate()
        process.wait()


def wait_for_port(port: int, process: subprocess.Popen) -> None:
    """Wait until somebody listens on the port. Raises RuntimeError if the process ends, or after ten seconds."""
    end = time.monotonic() + 10
    while process.poll() is None and time.monotonic() < end:
        try:
            return socket.create_connection(("127.0.0.1", port)).close()
        except OSError:
            time.sleep(0.02)
    raise RuntimeError(f"nginx does not listen on port {port}; its exit code is {process.poll()}")


class Names(socketserver.ThreadingUDPServer):
    """A name server: each name has `address`, for ten minutes as with Docker's. None stands for no such name."""

    def __init__(self, address: str | None = "127.0.0.1"):
        super().__init__(("127.0.0.1", 0), Answer)
        self.address = address
        self.port = self.server_address[1]
        threading.Thread(target=self.serve_forever, daemon=True).start()


class Answer(socketserver.BaseRequestHandler):
    """Answers one question by RFC 1035."""

    def handle(self) -> None:
        query, reply_to = self.request
        record = b""
        if self.server.address and query[-4:-2] == b"\0\1":  # an A record is asked for
            name, kind, seconds = b"\xc0\x0c", b"\0\1\0\1", (600).to_bytes(4)
            record = name + kind + seconds + b"\0\4" + socket.inet_aton(self.server.address)
        flags = b"\x81\x80" if self.server.address else b"\x81\x83"  # NXDOMAIN
        counts = b"\0\1" + (b"\0\1" if record else b"\0\0") + b"\0\0\0\0"
        reply_to.sendto(query[:2] + flags + counts + query[12:] + record, self.client_address)


class StandIn(ThreadingHTTPServer):
    """A server that answers every request with 200, and remembers it in `seen`: method, path and length of the body."""

    def __init__(self, address: str = "127.0.0.1", port: int = 0):
        super().__init__((address, port), Seen)
        self.seen: list[tuple[str, str, int]] = []
        self.port = self.server_address[1]
        threading.Thread(target=self.serve_forever, daemon=True).start()

    def stop(self) -> None:
        self.shutdown()
        self.server_close()


class Seen(BaseHTTPRequestHandler):
    def handle_any(self) -> None:
        length = int(self.headers.get("content-length", 0))
        self.server.seen.append((self.command, self.path, len(self.rfile.read(length))))
        self.send_response(200)
        self.send_header("content-length", "0")
        self.end_headers()

    do_GET = do_HEAD = do_POST = do_PUT = do_DELETE = handle_any

    def log_message(self, *_: object) -> None:
        pass
