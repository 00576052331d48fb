"""Servers that end, or that are ended. Each test ends the server it asks for."""

import os
import shutil
import signal
import subprocess
from pathlib import Path

import pytest

from tests.e2e.conftest import CAT
from tests.server import ROOT, Server


def workers(server: Server) -> list[int]:
    tasks = Path(f"/proc/{server.process.pid}/task")
    return [int(pid) for task in tasks.iterdir() for pid in (task / "children").read_text().split()]


@pytest.fixture
def short_pauses(tmp_path) -> dict[str, str]:
    """An environment in which `sleep` takes a tenth of a second: the pauses of script/healthcheck take 16."""
    sleep = tmp_path / "sleep"
    sleep.write_text(f"#!/bin/sh\nexec {shutil.which('sleep')} 0.1\n")
    sleep.chmod(0o755)
    return os.environ | {"PATH": f"{tmp_path}:{os.environ['PATH']}"}


def test_the_health_check_ends_a_server_whose_worker_has_died(start, tiny_folder, short_pauses):
    """Without it Cog's server would stay, and answer 409 for ever."""
    server = start(JSD_WEIGHTS=str(tiny_folder))
    check = [ROOT / "script" / "healthcheck", "--port", server.url.rpartition(":")[2], "--end", str(server.process.pid)]
    dead_proxy = {"http_proxy": "http://127.0.0.1:9", "HTTP_PROXY": "http://127.0.0.1:9"}
    assert subprocess.run(check, env=short_pauses | dead_proxy).returncode == 0
    (worker,) = workers(server)
    os.kill(worker, signal.SIGKILL)
    server.wait("its death", lambda: server.status() not in ("READY", "BUSY"), seconds=30)
    assert subprocess.run(check, env=short_pauses).returncode == 1
    server.process.wait(30)


def test_a_server_that_is_told_to_end_finishes_its_predictions_first(start):
    server = start()
    running = server.begin(**CAT | {"num_inference_steps": 100})
    running.wait_for("1/100 [")
    server.process.terminate()
    assert server.process.wait(60) == 0
    assert running.result()["status"] == "succeeded"
