"""The benchmarks compare like with like."""

import pytest
import torch

from bench import cpu_genuine
from bench.__main__ import main
from bench.peer import load_pipeline
from jsd import settings


@pytest.mark.parametrize(("dtype", "wanted"), [(None, torch.float32), ("bf16", torch.bfloat16)])
def test_stock_draws_on_the_device_and_in_the_type_of_ours(tiny_folder, monkeypatch, dtype, wanted):
    monkeypatch.setenv("JSD_DEVICE", "cpu")
    if dtype:
        monkeypatch.setenv("JSD_DTYPE", dtype)
    ours, stock = settings.load_components(tiny_folder), load_pipeline(tiny_folder)
    for part in ("unet", "vae"):  # ours keeps the others, which take little time, in float32
        parts = [getattr(side, part) for side in (ours, stock)]
        assert [(module.device.type, module.dtype) for module in parts] == [("cpu", wanted)] * 2


def test_a_few_steps_are_added_up_to_whole_pictures():
    drawn = {
        f"UNI_PC_{kind}_{part}": value
        for kind, step in (("ours", 2.0), ("stock", 8.0))
        for part, value in (("step", step), ("rest", 10.0))
    }
    found = cpu_genuine.sums(drawn | {"unet_call_ours": 2.0, "unet_call_openvino": 1.6})
    assert (found["UNI_PC_20_ours"], found["UNI_PC_20_stock"]) == (50, 170)
    assert (found["UNI_PC_20_ratio_to_stock"], found["unet_call_ratio_to_openvino"]) == (0.294, 1.25)
    lines = cpu_genuine.table(drawn | found).splitlines()
    assert "| UNI_PC, 20 steps, added up, s | 50.0 | 170.0 |  |  |  |" in lines
    assert "| a step of UNI_PC, measured, s | 2.0 | 8.0 |  |  |  |" in lines


def test_without_openvino_its_part_is_left_out_and_the_log_says_how_to_get_it(tiny_folder, tmp_path, capsys):
    command = ["cpu-genuine", "--weights", str(tiny_folder), "--only", "openvino", "--openvino", str(tmp_path / "no")]
    assert main(command) == 2
    assert "openvino: left out" in capsys.readouterr().out
