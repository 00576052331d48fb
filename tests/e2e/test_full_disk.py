"""A disk without room for all pictures of a request: the server keeps none, the command line what it has written."""

from __future__ import annotations

import subprocess
from pathlib import Path

import pytest

from tests.e2e.full_disk import own_disk
from tests.server import ROOT, start_server

SIZE = "400k"  # room for one picture, not for four
INPUTS = {"prompt": "猫", "width": 256, "height": 256, "num_inference_steps": 1, "seed": 5, "num_outputs": 4}


@pytest.fixture
def disk(tmp_path) -> list[str]:
    """The beginning of a command for which `tmp_path`/disk is a small disk of its own."""
    (tmp_path / "disk").mkdir()
    command = own_disk(tmp_path / "disk", SIZE)
    if command is None:
        pytest.skip("this system gives no process a disk of its own")
    return command


def test_a_prediction_whose_pictures_do_not_all_fit_fails_and_leaves_no_file(disk, tmp_path, tiny_folder):
    serve = [*disk, "sh", "-c", 'exec "$0" --port "$PORT"', ROOT / "script" / "serve"]
    environment = {"TMPDIR": str(tmp_path / "disk"), "JSD_WEIGHTS": str(tiny_folder)}
    server = start_server(tmp_path / "log", serve, **environment)
    try:
        prediction = server.predict(**INPUTS)
        assert prediction["status"] == "failed"
        assert "No space left on device" in prediction["error"]
        assert "output" not in prediction
        seen = Path(f"/proc/{server.process.pid}/root{tmp_path}/disk")
        assert [file for file in seen.rglob("*") if file.is_file()] == []
        assert len(server.draw(**INPUTS | {"num_outputs": 1})) == 1
    finally:
        server.stop()


def test_the_command_line_keeps_what_it_wrote_and_says_what_is_missing(disk, tmp_path, tiny_folder, monkeypatch):
    monkeypatch.setenv("JSD_WEIGHTS", str(tiny_folder))
    inputs = [word for name, value in INPUTS.items() for word in ("-i", f"{name}={value}")]
    predict = [ROOT / "script" / "predict", *inputs, "-o", tmp_path / "disk" / "cat.png"]
    command = [*disk, "sh", "-c", '"$@"; echo "code $?"; ls -A "$0"', tmp_path / "disk", *predict]
    done = subprocess.run(command, capture_output=True, text=True)
    listed = done.stdout.partition("code 2\n")[2].split()
    assert 0 < len(listed) < 4
    assert listed == [f"cat.{i}.png" for i in range(len(listed))]
    assert f"'cat.{len(listed)}.png' can't be written (No space left on device); written: 'cat.0.png'" in done.stderr
    assert f"from -i seed={5 + len(listed)}\n" in done.stderr
