"""A run that is killed with `kill -9` and started again equals a run that is left alone, to the bit."""

import os
import signal
import subprocess
import sys
import time

import pytest
import torch

from jsd.train.checkpoints import read_curve
from tests.train.runs import average_of, flags, run_loop


@pytest.mark.slow
def test_a_killed_run_resumes_to_the_same_curve_and_weights(settings, tmp_path):
    settings |= {"steps": 8, "save-every": 2}
    assert run_loop(settings, out=tmp_path / "whole") == 0
    command = [sys.executable, "-m", "jsd", "train", *flags(settings)]
    environment = {**os.environ, "OMP_NUM_THREADS": str(torch.get_num_threads())}
    for step in (2, 4):
        process = subprocess.Popen(command, env=environment, stderr=subprocess.DEVNULL)
        deadline = time.monotonic() + 120
        while not (tmp_path / "run" / f"stage1-{step:07d}").exists() and process.poll() is None:
            assert time.monotonic() < deadline
            time.sleep(0.01)
        process.send_signal(signal.SIGKILL)
        assert process.wait() == -signal.SIGKILL
    assert run_loop(settings) == 0
    assert torch.equal(average_of(tmp_path / "whole"), average_of(tmp_path / "run"))
    whole, killed = (
        [(row["step"], row["loss"]) for row in read_curve(tmp_path / name / "stage1.jsonl")]
        for name in ("whole", "run")
    )
    assert whole == killed
