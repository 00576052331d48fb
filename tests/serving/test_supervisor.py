"""The supervisor starts a server again after a death, and gives up where that is no use. The servers are fakes."""

import os
import signal
import socket
import subprocess
import sys
import time
import urllib.request
from collections.abc import Sequence
from functools import partial
from pathlib import Path

import pytest

from serving import health
from tests.server import ROOT

FAKE = """
import http.server, json, os, pathlib, signal, sys, time
port, notes, kind = int(sys.argv[1]), pathlib.Path(sys.argv[2]), sys.argv[3]
starts = len(notes.read_text().splitlines()) + 1 if notes.exists() else 1
with notes.open("a") as file:
    print(os.getpid(), file=file)
if kind == "broken" or (kind == "broken later" and starts > 1):
    sys.exit(7)
failed = kind == "setup fails" or (kind == "setup fails later" and starts > 1)
answer = {"status": "SETUP_FAILED" if failed else "READY"}
class Handler(http.server.BaseHTTPRequestHandler):
    def do_GET(self):
        self.send_response(200)
        self.end_headers()
        self.wfile.write(json.dumps(answer).encode())
        if kind == "ill" and starts == 1:
            answer.update(status="UNHEALTHY", user_healthcheck_error="tired")
        if self.path == "/shutdown":
            self.server.socket.close()  # and finishes what clients wait for
            time.sleep(1.5)
            note("drained")
            os._exit(0)
    log_message = lambda *_: None
def note(word):
    with notes.with_suffix(".ends").open("a") as file:
        print(word, file=file)
def end(*_):
    note("ended")
    sys.exit(0)
signal.signal(signal.SIGTERM, end)
http.server.HTTPServer(("127.0.0.1", port), Handler).serve_forever()
"""
START = """
import sys
from serving import supervisor
supervisor.CHECK_SECONDS = supervisor.START_SECONDS = 0.05
supervisor.LONGEST_PAUSE = 0.1
sys.exit(supervisor.Supervisor("127.0.0.1", int(sys.argv[1]), sys.argv[2:]).run())
"""


class Supervised:
    def __init__(self, folder: Path, kind: str, wrapper: Sequence[str] = ()):
        with socket.create_server(("127.0.0.1", 0)) as free:
            self.port = free.getsockname()[1]
        self.notes = folder / "notes"
        command = [*wrapper, sys.executable, "-c", START, str(self.port)]
        command += [sys.executable, "-c", FAKE, str(self.port), str(self.notes), kind]
        listens = partial(signal.signal, signal.SIGHUP, signal.SIG_DFL)  # even where the tests run with nohup
        self.process = subprocess.Popen(command, cwd=ROOT, stderr=subprocess.PIPE, text=True, preexec_fn=listens)

    @property
    def servers(self) -> list[int]:
        """The process ids of the servers that were started."""
        return [int(line) for line in self.notes.read_text().splitlines()] if self.notes.exists() else []

    def wait_for_starts(self, count: int) -> None:
        deadline = time.monotonic() + 30
        while len(self.servers) < count or not health.ask(self.port).alive:
            assert time.monotonic() < deadline, f"{len(self.servers)} starts"
            time.sleep(0.02)
        time.sleep(0.3)  # for the supervisor to see it too


@pytest.fixture
def supervise(tmp_path):
    found = []

    def supervise(kind: str, *wrapper: str) -> Supervised:
        found.append(Supervised(tmp_path, kind, wrapper))
        return found[-1]

    yield supervise
    for supervised in found:
        supervised.process.terminate()
        supervised.process.communicate(timeout=30)


@pytest.mark.parametrize("number", [signal.SIGKILL, signal.SIGTERM])
def test_a_server_that_dies_is_started_again(supervise, number):
    """Also one that ends in order: a stranger's POST to /shutdown does that."""
    supervised = supervise("good")
    for starts in (1, 2, 3):
        supervised.wait_for_starts(starts)
        os.kill(supervised.servers[-1], number)
    supervised.wait_for_starts(4)
    assert supervised.process.poll() is None
    assert len(set(supervised.servers)) == 4


def test_a_server_that_can_not_draw_is_ended_and_started_again(supervise):
    supervised = supervise("ill")
    supervised.wait_for_starts(2)
    assert supervised.notes.with_suffix(".ends").read_text() == "ended\n"


def test_a_server_that_finishes_what_clients_wait_for_is_not_disturbed(supervise):
    """Somebody has told it to end. Its port is closed meanwhile."""
    supervised = supervise("good")
    supervised.wait_for_starts(1)
    with urllib.request.urlopen(f"http://127.0.0.1:{supervised.port}/shutdown") as answer:
        assert answer.status == 200
    supervised.wait_for_starts(2)
    assert supervised.notes.with_suffix(".ends").read_text() == "drained\n"


@pytest.mark.parametrize(
    ("kind", "starts", "code"), [("broken", 1, 7), ("broken later", 4, 7), ("setup fails later", 4, 1)]
)
def test_a_broken_start_does_not_loop(supervise, kind, starts, code):
    supervised = supervise(kind)
    if "later" in kind:
        supervised.wait_for_starts(1)
        os.kill(supervised.servers[0], signal.SIGKILL)
    _, said = supervised.process.communicate(timeout=30)
    assert supervised.process.returncode == code
    assert "before it was ready" in said
    assert len(supervised.servers) == starts


def test_the_reason_of_a_failed_setup_stays_to_be_read(supervise):
    supervised = supervise("setup fails")
    deadline = time.monotonic() + 30
    while health.ask(supervised.port).status != "SETUP_FAILED":
        assert time.monotonic() < deadline
    time.sleep(1)
    assert health.ask(supervised.port).status == "SETUP_FAILED"
    assert len(supervised.servers) == 1


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGHUP])
def test_a_signal_ends_both(supervise, number):
    supervised = supervise("good")
    supervised.wait_for_starts(1)
    supervised.process.send_signal(number)
    supervised.process.wait(30)
    assert not health.ask(supervised.port).alive
    assert len(supervised.servers) == 1


def test_with_nohup_a_closed_terminal_ends_nothing(supervise):
    supervised = supervise("good", "nohup")
    supervised.wait_for_starts(1)
    for process in (supervised.process.pid, *supervised.servers):
        os.kill(process, signal.SIGHUP)
    time.sleep(0.5)
    assert health.ask(supervised.port).alive
    assert len(supervised.servers) == 1
