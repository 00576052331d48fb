"""Whatever breaks inside fails its own request with a reason; the others get their pictures, and the server goes on."""

import os
import signal
import subprocess
from pathlib import Path

import pytest

from tests.e2e.conftest import CAT, ROOT, Server

STAGES = ["text", "step", "decode", "safety", "watermark", "write"]
MESSAGES = {
    "memory": "ut of memory",
    "exception": "broken on purpose",
    "disk": "No space left on device",
    "nan": "NaN",
}


@pytest.fixture(scope="module")
def server(start) -> Server:
    """Serves what the container serves, but breaks where a negative prompt says so."""
    server = start(COG_PREDICT_TYPE_STUB="tests/e2e/faulty.py:Predictor")
    assert server.status() == "READY", server.health()
    yield server
    server.stop()


@pytest.mark.usefixtures("still_serving")
@pytest.mark.parametrize(
    ("stage", "kind"),
    [
        *((stage, kind) for stage in STAGES for kind in ("memory", "exception")),
        ("step", "nan"),
        ("watermark", "disk"),
        ("write", "disk"),
    ],
)
def test_a_fault_is_its_own_requests_and_tells_why(server, stage, kind):
    companion = server.begin(**CAT | {"num_inference_steps": 40, "seed": 8})
    companion.wait_for("1/40 [")
    prediction = server.predict(**CAT | {"negative_prompt": f"fault {stage} {kind}", "num_outputs": 2})
    assert companion.result()["status"] == "succeeded"
    assert prediction["status"] == "failed"
    assert MESSAGES[kind] in prediction["error"]
    assert "output" not in prediction


@pytest.mark.usefixtures("still_serving")
def test_one_cancelled_while_its_files_are_written(server):
    running = server.begin(**CAT | {"negative_prompt": "fault write slow"})
    running.wait_for("on purpose slow")
    assert running.cancel() == 200
    assert running.result()["status"] == "canceled"


def test_a_lost_device_makes_it_unhealthy_and_then_it_leaves(start):
    server = start(COG_PREDICT_TYPE_STUB="tests/e2e/faulty.py:Predictor")
    companion = server.begin(**CAT | {"num_inference_steps": 500})
    companion.wait_for("1/500 [")
    prediction = server.predict(**CAT | {"negative_prompt": "fault step lost"})
    for failed in (prediction, companion.result()):
        assert failed["status"] == "failed"
        assert "the server has to be started again" in failed["error"]
    assert server.status() == "UNHEALTHY"
    assert server.process.wait(30) == 0


def workers(server: Server) -> list[int]:
    tasks = Path(f"/proc/{server.process.pid}/task")
    return [int(pid) for task in tasks.iterdir() for pid in (task / "children").read_text().split()]


def test_the_health_check_ends_a_server_whose_worker_has_died(start):
    """Cog's server would stay, and answer 409 for ever."""
    server = start()
    check = [ROOT / "script" / "healthcheck", "--port", server.url.rpartition(":")[2]]
    dead_proxy = os.environ | {"http_proxy": "http://127.0.0.1:9", "HTTP_PROXY": "http://127.0.0.1:9"}
    assert subprocess.run([*check, "--end", str(server.process.pid)], env=dead_proxy).returncode == 0
    (worker,) = workers(server)
    os.kill(worker, signal.SIGKILL)
    server.wait("its death", lambda: server.status() not in ("READY", "BUSY"), seconds=30)
    assert subprocess.run([*check, "--end", str(server.process.pid)]).returncode == 1
    server.process.wait(30)
