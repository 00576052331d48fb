"""A short run of `script/soak`. The command itself measures what 1000 predictions leave behind."""

import json
import subprocess

import pytest

from tests.server import ROOT


@pytest.mark.slow
def test_a_short_soak_draws_every_picture_right_and_leaves_nothing_behind():
    command = [ROOT / "script" / "soak", "--predictions", "30", "--rest", "2"]
    done = subprocess.run(command, capture_output=True, text=True, timeout=300)
    assert done.returncode == 0, done.stderr[-2000:]
    report = json.loads(done.stdout.splitlines()[-1])
    assert (report["predictions"], report["wrong"]) == (30, 0)
    assert abs(report["fd_growth"]) <= 8
    assert abs(report["thread_growth"]) <= 8
    assert report["rss_growth"] < 0.6  # the first full batches still make room: -0.05 after 200 predictions
