"""script/healthcheck: what counts as alive, and who is ended. The servers are fakes, the command is the real one."""

import http.server
import json
import socket
import subprocess
import threading
from collections.abc import Iterator

import pytest

from serving import health
from tests.server import ROOT

ALIVE = ("READY", "BUSY", "STARTING")
DEAD = ("UNHEALTHY", "SETUP_FAILED", "DEFUNCT", "no answer", "closed")


@pytest.fixture
def answering() -> Iterator:
    """A function that starts a server whose health answer is given, and returns its port."""
    servers = []

    def answering(answer: bytes) -> int:
        class Handler(http.server.BaseHTTPRequestHandler):
            def do_GET(self):
                self.send_response(200)
                self.end_headers()
                self.wfile.write(answer)

            def log_message(self, *_):
                pass

        servers.append(http.server.ThreadingHTTPServer(("127.0.0.1", 0), Handler))
        threading.Thread(target=servers[-1].serve_forever, args=(0.01,), daemon=True).start()
        return servers[-1].server_address[1]

    yield answering
    for server in servers:
        server.shutdown()
        server.server_close()


def test_the_status_and_the_reason_are_read(answering):
    port = answering(json.dumps({"status": "UNHEALTHY", "user_healthcheck_error": "the GPU is gone"}).encode())
    assert str(health.ask(port)) == "UNHEALTHY: the GPU is gone"


@pytest.mark.parametrize("answer", [b"", b"[]", b"{}", b"null", b"\xff", b'{"status": '])
def test_a_strange_answer_is_none(answering, answer):
    assert health.ask(answering(answer)) == health.Health(health.NO_ANSWER)


def test_a_closed_port_is_of_a_server_that_ends():
    with socket.create_server(("127.0.0.1", 0)) as server:
        port = server.getsockname()[1]
    assert health.ask(port) == health.Health(health.CLOSED)
    assert health.ask(port).ends_by_itself
    assert not health.ask(port).alive


@pytest.mark.parametrize("status", [*ALIVE, *DEAD])
def test_who_is_alive(status):
    assert health.Health(status).alive == (status in ALIVE)


def test_the_command_ends_who_is_dead_and_spares_who_ends_by_itself(answering):
    reasons = {"dead": "the GPU is gone", "leaving": f"Cog has lost 3 of 32 slots: {health.BY_ITSELF}"}
    victims = {name: subprocess.Popen(["sleep", "60"]) for name in (*reasons, "alive")}
    checks = {}
    for name, victim in victims.items():
        status = {"status": "BUSY" if name == "alive" else "UNHEALTHY", "user_healthcheck_error": reasons.get(name)}
        port = answering(json.dumps(status).encode())
        command = [ROOT / "script" / "healthcheck", "--port", str(port), "--end", str(victim.pid)]
        checks[name] = subprocess.Popen(command, stdout=subprocess.PIPE, text=True)
    victims["dead"].wait(30)
    said = {name: check.communicate(timeout=60)[0].strip() for name, check in checks.items()}
    assert {name: check.returncode for name, check in checks.items()} == {"dead": 1, "leaving": 1, "alive": 0}
    assert said == {name: f"UNHEALTHY: {reason}" for name, reason in reasons.items()} | {"alive": "BUSY"}
    assert victims["leaving"].poll() is None
    assert victims["alive"].poll() is None
    for victim in victims.values():
        victim.kill()
        victim.wait()
