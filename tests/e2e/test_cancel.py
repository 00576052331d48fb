"""A cancelled prediction ends within a step, and other predictions are drawn as if it had never been."""

import json
import socket
import time

import pytest

from tests.e2e.conftest import SMALL

pytestmark = pytest.mark.usefixtures("still_serving")

LONG = SMALL | {"num_inference_steps": 500, "num_outputs": 2}
LARGE = SMALL | {"num_inference_steps": 6, "num_outputs": 2, "width": 512, "height": 512}


def assert_cancelled(running) -> None:
    prediction = running.result()
    assert prediction["status"] == "canceled"
    assert "output" not in prediction


def test_a_running_prediction_can_be_cancelled_more_than_once(server):
    running = server.begin(**LONG)
    running.wait_for("2/500 [")
    assert running.cancel() == 200
    running.cancel()
    running.cancel()
    assert_cancelled(running)
    assert "500/500" not in server.log()
    assert running.cancel() == 404


def test_a_waiting_prediction_can_be_cancelled(server):
    first = server.begin(**LONG | {"num_outputs": 8, "seed": 1})
    first.wait_for("1/500 [")
    # The first prediction fills the batch, so these two wait.
    second = server.begin(**LONG | {"num_outputs": 8, "seed": 2})
    running = server.begin(**LONG | {"num_outputs": 8})
    time.sleep(0.5)  # Cog 0.23.1 may call a prediction failed that is cancelled at its very start
    assert running.cancel() == 200
    assert_cancelled(running)
    for other in (first, second):
        assert other.cancel() == 200
        assert_cancelled(other)


@pytest.mark.parametrize("step", [1, 3, 5])
def test_a_prediction_can_be_cancelled_at_every_step(server, step):
    running = server.begin(**LARGE)
    running.wait_for(f"{step}/6 [")
    assert running.cancel() == 200
    assert_cancelled(running)


def test_a_prediction_can_be_cancelled_while_its_pictures_are_decoded(server):
    running = server.begin(**LARGE | {"num_outputs": 4})
    running.wait_for("6/6 [")
    assert running.cancel() == 200
    assert_cancelled(running)


def test_cancelling_an_ended_or_unknown_prediction_is_a_404(server):
    running = server.begin(**SMALL)
    assert running.result()["status"] == "succeeded"
    assert running.cancel() == 404
    assert server.call("POST", "/predictions/nobody/cancel")[0] == 404


def test_a_client_that_hangs_up_frees_its_rows(server):
    body = json.dumps({"input": SMALL | {"num_inference_steps": 480, "num_outputs": 4}}).encode()
    head = f"POST /predictions HTTP/1.1\r\nHost: here\r\nContent-Type: application/json\r\nContent-Length: {len(body)}"
    host, port = server.url.removeprefix("http://").split(":")
    with socket.create_connection((host, int(port))) as client:
        client.sendall(head.encode() + b"\r\n\r\n" + body)
        server.wait("progress", lambda: "2/480 [" in server.log())
    server.wait("the end of it", lambda: server.predict(**SMALL)["metrics"]["batch_rows"] == 2, seconds=60)
    assert "480/480" not in server.log()
