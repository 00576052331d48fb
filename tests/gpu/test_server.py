"""The server of the container on a GPU, over HTTP."""

from __future__ import annotations

import os
import shutil
import sys
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest

from jsd import watermark
from tests.fakes import psnr
from tests.gpu.conftest import DEVICE, ON_GPU
from tests.server import ROOT, picture, start_server

CAT = {"prompt": "猫の肖像画 油絵", "width": 256, "height": 256, "num_inference_steps": 4}
# The embedded model in float16: rounding as in ALIKE, and eight requests in one call.
LEAST = 40 if ON_GPU else 50


@pytest.fixture(scope="module")
def server(tmp_path_factory):
    """Cog's server as the container starts it: `script/serve` needs `.venv`, which such a machine may lack."""
    folder = tmp_path_factory.mktemp("server")
    shutil.copy(ROOT / "predict.py", folder)
    environment = {
        "PATH": f"{Path(sys.executable).parent}{os.pathsep}{os.environ['PATH']}",
        "PYTHONPATH": os.pathsep.join(filter(None, [str(ROOT), os.environ.get("PYTHONPATH")])),
        "JSD_DEVICE": str(DEVICE),
        "COG_PREDICT_TYPE_STUB": "predict.py:Predictor",
        "COG_MAX_CONCURRENCY": "32",
    }
    command = [sys.executable, "-m", "cog.server.http", "--host", "127.0.0.1"]
    server = start_server(folder / "log", command, folder, **environment)
    yield server
    server.stop()


def test_it_starts_on_the_device_and_says_how(server):
    assert server.status() == "READY", server.log()
    said = f"device {DEVICE}, {'fp16' if ON_GPU else 'fp32'}, safety checker on" + ", CUDA graphs" * ON_GPU
    assert said in server.health()["setup"]["logs"]


def test_eight_clients_at_once_get_the_marked_pictures_that_each_gets_alone(server):
    requests = [CAT | {"seed": seed} for seed in range(8)]
    alone = [server.draw(**inputs)[0] for inputs in requests]
    with ThreadPoolExecutor(len(requests)) as clients:
        predictions = list(clients.map(lambda inputs: server.predict(**inputs), requests))
    assert max(prediction["metrics"]["batch_rows"] for prediction in predictions) > 2
    for prediction, theirs in zip(predictions, alone, strict=True):
        ours = picture(prediction["output"][0])
        assert psnr(ours, theirs) >= LEAST
        assert watermark.detect(ours).marked
        assert prediction["metrics"]["timings"]["denoise"] > 0
    assert psnr(alone[0], alone[1]) < 20


def test_a_cancelled_prediction_changes_no_other(server):
    (before,) = server.draw(**CAT, seed=3)
    running = server.begin(**CAT | {"num_inference_steps": 500, "num_outputs": 4, "seed": 5})
    running.wait_for("2/500 [")
    assert running.cancel() == 200
    assert running.result()["status"] == "canceled"
    (after,) = server.draw(**CAT, seed=3)
    assert psnr(before, after) >= LEAST
    assert server.status() == "READY"
