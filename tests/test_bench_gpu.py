"""`script/bench gpu` runs to its end, also where a part fails or takes too long. Here it runs on a CPU."""

from __future__ import annotations

import json
import subprocess
import sys

import pytest

from bench import gpu
from tests.server import ROOT


@pytest.mark.slow
def test_it_measures_a_small_round_on_a_cpu(tiny_folder, tmp_path):
    command = [sys.executable, "-m", "bench", "gpu", "--device", "cpu", "--quick", "--only", "plain"]
    command += ["--weights", tiny_folder, "--plot", tmp_path / "plot.png"]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=True)
    figures = json.loads(done.stdout.splitlines()[-1])
    assert figures["card"] == "CPU"
    assert figures["quick"]
    names = "product_tflops K_LMS_floor unet_2_eager K_LMS_ours K_LMS_stock UNI_PC_ours engine_2_ours large_stock"
    assert all(figures[name] > 0 for name in names.split())
    assert (tmp_path / "plot.png").stat().st_size > 1000


@pytest.mark.slow
@pytest.mark.parametrize(
    ("end", "reason"),
    [("time.sleep(60)", "slow: ended after its time limit"), ("sys.exit(3)", "slow: failed with 3"), ("", None)],
)
def test_the_figures_of_a_part_count_however_it_ends(capsys, end, reason):
    code = f"import sys, time; print('loading'); print('{{\"K_LMS_ours\": 1.5}}', flush=True); {end}"
    figures = {"card": "A"}
    gpu.collect("slow", [sys.executable, "-c", code], {}, 3, figures)
    assert figures == {"card": "A", "K_LMS_ours": 1.5}
    printed = capsys.readouterr().out
    assert "K_LMS_ours" in printed
    assert (f"{reason}; the figures so far count" in printed) if reason else printed.count("\n") == 2


def test_the_table_shows_what_there_is():
    figures = {"card": "A", "K_LMS_ours": 0.7, "K_LMS_stock": 1.5, "UNI_PC_stock": 0.5, "engine_8_ours": 5.2}
    lines = gpu.table(figures).splitlines()
    assert lines[0] == "| A | ours | ours compiled | stock | stock compiled | floor |"
    assert "| one picture, K_LMS 50 steps, s | 0.7 |  | 1.5 |  |  |" in lines
    assert "| 8 requests of 20 steps, pictures/s | 5.2 |  | 2.0 |  |  |" in lines


def test_without_any_figure_it_fails(tmp_path):
    command = [sys.executable, "-m", "bench", "gpu", "--weights", tmp_path, "--seconds", "1"]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=False)
    assert done.returncode == 2
    assert "plain: left out, for want of time" in done.stdout
    assert "no part came to a figure" in done.stderr
