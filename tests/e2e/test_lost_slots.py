"""Requests that cost Cog its slots, its disk or the folders of others cost this server a restart at most."""

import time
from pathlib import Path

import pytest

from serving.folders import COG_FOLDERS
from tests.server import Server, to_uri


@pytest.fixture
def server(start, tiny_folder, tmp_path_factory) -> Server:
    """A server with a model that draws a picture in milliseconds, and a temporary folder of its own."""
    server = start(JSD_WEIGHTS=str(tiny_folder), TMPDIR=str(tmp_path_factory.getbasetemp()))
    assert server.status() == "READY", server.health()
    return server


@pytest.mark.slow
def test_lost_slots_come_back_within_a_minute(server):
    restarts, began = server.restarts, time.monotonic()
    running = server.begin(num_inference_steps=500, width=128, height=128)
    running.wait_for("1/500 [")
    for number in range(31):
        code, prediction = server.call("POST", "/predictions", {"id": "a" * 300 if number else "a\0b", "input": {}})
        assert (code, prediction["status"]) == (200, "failed")
    server.wait("a line in the log", lambda: "of 32 slots: this server ends by itself" in server.log(), seconds=30)
    health = server.health()
    assert health["status"] == "UNHEALTHY"
    assert "slots: this server ends by itself" in health["user_healthcheck_error"]
    assert running.result()["status"] == "succeeded"
    server.wait("its return", lambda: server.restarts > restarts and server.status() == "READY", seconds=60)
    assert len(server.draw(prompt="猫")) == 1
    assert time.monotonic() - began < 60


def test_an_empty_id_costs_nobody_a_folder(server):
    """Cog takes its whole folder of predictions for this one's."""
    another = COG_FOLDERS / "of-another-server"
    (another / "outputs").mkdir(parents=True, exist_ok=True)
    try:
        answers = [server.call(*where, {"id": "", "input": {}}) for where in [("POST", "/predictions")] * 3]
        assert {answer["status"] for _, answer in answers} == {"succeeded"}
        assert another.exists()
    finally:
        (another / "outputs").rmdir()
        another.rmdir()


def test_thirty_megabytes_leave_no_file_when_another_input_fails(server, tmp_path_factory):
    def files() -> int:
        return sum(path.stat().st_size for path in tmp_path_factory.getbasetemp().glob("tmp*") if path.is_file())

    before = files()
    large = to_uri(bytes(30_000_000))
    prediction = server.predict(image=large, mask="http://127.0.0.1:1/cat.png", prompt_strength=0.5)
    assert prediction["status"] == "failed"
    assert "mask: 'http://127.0.0.1:1/cat.png' can't be fetched" in prediction["error"]
    assert files() == before
    spilled = [file for file in COG_FOLDERS.rglob("*") if file.is_file() and file.stat().st_size > 1_000_000]
    assert [Path(file) for file in spilled if prediction["id"] in file.parts] == []
