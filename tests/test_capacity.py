"""How many rows a call may have, by what a few of them take."""

from __future__ import annotations

from dataclasses import replace

import pytest
import torch

from jsd import device
from jsd.device import CPU_ROWS, FEW, MANY, MOST_ROWS, max_batch_rows, rows_that_fit, run_unet, run_vae

MB = 1_000_000


@pytest.mark.parametrize(
    ("free", "rows"), [(100_000 * MB, MOST_ROWS), (10_000 * MB, 29), (2_000 * MB, 1), (0, 1)], ids=str
)
def test_rows_are_what_is_left_beside_the_decoding_of_a_picture(free, rows):
    few, many = (500 + 200 * n for n in (FEW, MANY))  # MB: 500 at once and 200 a row
    assert rows_that_fit(free, few * MB, many * MB, decoding=2_600 * MB) == rows


def test_rows_that_take_nothing_are_as_many_as_anybody_wants():
    assert rows_that_fit(100 * MB, 0, 0, 0) == MOST_ROWS


def test_on_a_cpu_nothing_is_measured(components, spied):
    assert max_batch_rows(spied) == CPU_ROWS
    assert spied.unet.calls == []


def test_what_is_measured_is_a_call_of_the_models_own_size(spied, components, monkeypatch):
    run_unet(spied, 3)
    assert spied.unet.calls == [3]
    seen = []
    decode = components.vae.decode
    monkeypatch.setattr(components.vae, "decode", lambda z: seen.append(tuple(z.shape)) or decode(z))
    run_vae(components)
    cells = components.defaults.width // components.defaults.cell
    assert seen == [(1, components.vae.config.latent_channels, cells, cells)]


def test_a_gpu_too_small_for_the_measurement_takes_few_rows(components, monkeypatch):
    def run_unet(components, rows):
        if rows == MANY:
            raise torch.OutOfMemoryError("CUDA out of memory")

    monkeypatch.setattr(device, "run_unet", run_unet)
    for name in ("empty_cache", "reset_peak_memory_stats", "synchronize"):
        monkeypatch.setattr(torch.cuda, name, lambda *_: None)
    for name in ("memory_allocated", "max_memory_allocated"):
        monkeypatch.setattr(torch.cuda, name, lambda _: 0)
    gpu = replace(components, device=torch.device("cuda"))
    assert max_batch_rows(gpu) == FEW
    assert device.decode_batch(gpu) > device.decode_batch(components) == 1
