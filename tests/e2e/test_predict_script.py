"""`script/predict`, the first command a new user runs."""

import os
import subprocess

from e2e.conftest import ROOT, WEIGHTS
from jsd import images


def run(*arguments: str, cwd) -> subprocess.CompletedProcess:
    return subprocess.run(
        [ROOT / "script" / "predict", *arguments],
        cwd=cwd,
        env=os.environ | {"JSD_WEIGHTS": WEIGHTS},
        capture_output=True,
        text=True,
        timeout=600,
    )


def test_it_writes_the_picture_where_it_was_called(tmp_path):
    done = run(
        "-i", "prompt=猫の肖像画 油絵", "-i", "seed=1", "-i", "num_inference_steps=4", "-o", "out.png", cwd=tmp_path
    )
    assert done.returncode == 0, done.stderr
    assert [path.name for path in tmp_path.iterdir()] == ["out.png"]
    assert images.read_metadata(tmp_path / "out.png")["prompt"] == "猫の肖像画 油絵"
    assert "out.png: seed 1" in done.stdout


def test_bad_input_is_told_with_exit_code_2(tmp_path):
    done = run("-i", "prompt=猫", "-i", "num_inference_steps=999", cwd=tmp_path)
    assert done.returncode == 2
    assert "num_inference_steps: 999 was given; 1 to 500 are allowed" in done.stderr
    assert list(tmp_path.iterdir()) == []
