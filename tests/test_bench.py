"""The benchmarks compare like with like."""

import pytest
import torch

from bench.peer import load_pipeline
from jsd import settings


@pytest.mark.parametrize(("dtype", "wanted"), [(None, torch.float32), ("bf16", torch.bfloat16)])
def test_stock_draws_on_the_device_and_in_the_type_of_ours(tiny_folder, monkeypatch, dtype, wanted):
    monkeypatch.setenv("JSD_DEVICE", "cpu")
    if dtype:
        monkeypatch.setenv("JSD_DTYPE", dtype)
    ours, stock = settings.load_components(tiny_folder), load_pipeline(tiny_folder)
    for part in ("unet", "vae", "text_encoder", "safety_checker"):
        parts = [getattr(side, part) for side in (ours, stock)]
        assert [(module.device.type, module.dtype) for module in parts] == [("cpu", wanted)] * 2
