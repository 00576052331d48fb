"""Servers that end, or that are ended. All but the last one come back."""

import os
import signal
import subprocess

import pytest

from tests.e2e.conftest import CAT
from tests.server import ROOT

DYING = """
import os, signal
from cog import BasePredictor

class Predictor(BasePredictor):
    def setup(self):
        os.kill(os.getpid(), signal.SIGKILL)

    async def predict(self) -> str:
        return ""
"""


@pytest.mark.slow
def test_a_server_whose_worker_has_died_answers_as_documented_until_the_health_check_ends_it(start, tiny_folder):
    """Without the check Cog's server would stay, and answer 409 for ever."""
    server = start(JSD_WEIGHTS=str(tiny_folder))
    supervisor, cog, worker = server.processes
    check = [ROOT / "script" / "healthcheck", "--port", server.url.rpartition(":")[2], "--end", str(cog)]
    dead_proxy = {"http_proxy": "http://127.0.0.1:9", "HTTP_PROXY": "http://127.0.0.1:9"}
    assert subprocess.run(check, env=os.environ | dead_proxy).returncode == 0
    running = server.begin(prompt="猫", num_inference_steps=500)
    running.wait_for("1/500 [")
    os.kill(worker, signal.SIGKILL)
    assert running.result()["error"] == "Worker crashed"
    os.kill(supervisor, signal.SIGSTOP)  # its own checks would end the server within seconds
    try:
        # A request in the very moment of the worker's death can wait for ever.
        server.wait("the end of its worker", lambda: server.health()["status"] == "UNHEALTHY")
        answers = [server.call("POST", "/predictions", {"input": {}}) for _ in range(40)]
        health = server.health()
        done = subprocess.run(check, capture_output=True, text=True)
    finally:
        os.kill(supervisor, signal.SIGCONT)
    failed = [answer["error"] for code, answer in answers if code == 200]
    assert 0 < len(failed) < 32
    assert all(error == "Worker crashed" or "Broken pipe" in error for error in failed)
    assert {code for code, _ in answers[len(failed) :]} == {409}
    assert health["status"] == "UNHEALTHY"
    assert health["user_healthcheck_error"] == "Healthcheck error: protocol error: healthcheck channel closed"
    assert done.returncode == 1
    assert done.stdout.startswith("UNHEALTHY")
    server.wait("its return", lambda: server.restarts == 1 and server.status() == "READY", seconds=60)


def test_a_worker_that_dies_during_setup_has_failed_it(start, tmp_path):
    """It is not started again: the reason stays to be read."""
    dying = tmp_path / "dying.py"
    dying.write_text(DYING)
    server = start(COG_PREDICT_TYPE_STUB=f"{dying}:Predictor")
    health = server.health()
    assert (health["status"], health["setup"]["logs"]) == ("SETUP_FAILED", "worker crashed")
    code, answer = server.call("POST", "/predictions", {"input": {}})
    assert (code, answer["error"].partition(".")[0]) == (503, "Setup has not finished yet")


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
    for process in server.processes[1:]:
        os.kill(process, signal.SIGHUP)  # a closed terminal's; to the supervisor it is as good as SIGTERM
    server.process.terminate()
    assert server.process.wait(60) == 0
    assert running.result()["status"] == "succeeded"
