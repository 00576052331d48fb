"""A fault fails its own request with the reason. Other requests get their pictures, and the server goes on."""

import pytest

from tests.e2e.conftest import SMALL
from tests.server import Server

STAGES = ["text", "step", "decode", "safety", "watermark", "write"]
MESSAGES = {
    "memory": "ut of memory",
    "exception": "broken on purpose",
    "disk": "No space left on device",
    "nan": "NaN",
}


@pytest.fixture
def server(start) -> Server:
    """A server with the container's Predictor that fails where a negative prompt says so."""
    server = start(COG_PREDICT_TYPE_STUB="tests/e2e/faulty.py:Predictor")
    assert server.status() == "READY", server.health()
    return server


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
def test_a_fault_fails_only_its_own_request_and_gives_the_reason(server, stage, kind):
    companion = server.begin(**SMALL | {"num_inference_steps": 20, "seed": 8})
    companion.wait_for("1/20 [")
    prediction = server.predict(**SMALL | {"negative_prompt": f"fault {stage} {kind}", "num_outputs": 2})
    assert companion.result()["status"] == "succeeded"
    assert prediction["status"] == "failed"
    assert MESSAGES[kind] in prediction["error"]
    assert "output" not in prediction


@pytest.mark.usefixtures("still_serving")
def test_a_prediction_can_be_cancelled_while_its_files_are_written(server):
    running = server.begin(**SMALL | {"negative_prompt": "fault write slow"})
    running.wait_for("on purpose slow")
    assert running.cancel() == 200
    assert running.result()["status"] == "canceled"


@pytest.mark.slow
def test_a_server_whose_device_is_lost_becomes_unhealthy_ends_and_is_started_again(server):
    companion = server.begin(**SMALL | {"num_inference_steps": 500})
    companion.wait_for("1/500 [")
    prediction = server.predict(**SMALL | {"negative_prompt": "fault step lost"})
    for failed in (prediction, companion.result()):
        assert failed["status"] == "failed"
        assert "the server has to be started again" in failed["error"]
    health = server.health()
    assert health["status"] == "UNHEALTHY"
    assert "illegal memory access" in health["user_healthcheck_error"]
    server.wait("its return", lambda: server.restarts == 1 and server.status() == "READY", seconds=60)
    assert len(server.draw(**SMALL)) == 1
