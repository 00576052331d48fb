"""Servers that end, or that are ended. All but the last one come back."""

import os
import signal
import subprocess

from tests.e2e.conftest import CAT
from tests.server import ROOT


def test_the_health_check_ends_a_server_whose_worker_has_died(start, tiny_folder):
    """Without it Cog's server would stay, and answer 409 for ever."""
    server = start(JSD_WEIGHTS=str(tiny_folder))
    _, cog, worker = server.processes
    check = [ROOT / "script" / "healthcheck", "--port", server.url.rpartition(":")[2], "--end", str(cog)]
    dead_proxy = {"http_proxy": "http://127.0.0.1:9", "HTTP_PROXY": "http://127.0.0.1:9"}
    assert subprocess.run(check, env=os.environ | dead_proxy).returncode == 0
    os.kill(worker, signal.SIGKILL)
    server.wait("its death", lambda: server.status() not in ("READY", "BUSY"), seconds=30)
    done = subprocess.run(check, capture_output=True, text=True)
    assert done.returncode == 1
    assert done.stdout.startswith(("UNHEALTHY", "no answer"))
    server.wait("its return", lambda: server.restarts == 1 and server.status() == "READY", seconds=60)


def test_a_server_that_somebody_shuts_down_is_started_again(start, tiny_folder):
    server = start(JSD_WEIGHTS=str(tiny_folder))
    restarts = server.restarts
    assert server.call("POST", "/shutdown")[0] == 200
    server.wait("its return", lambda: server.restarts == restarts + 1 and server.status() == "READY", seconds=60)
    assert len(server.draw(prompt="猫")) == 1


def test_a_server_that_is_told_to_end_finishes_its_predictions_first(start):
    server = start()
    running = server.begin(**CAT | {"num_inference_steps": 100})
    running.wait_for("1/100 [")
    server.process.terminate()
    assert server.process.wait(60) == 0
    assert running.result()["status"] == "succeeded"
