"""How much a device can hold, and what happens when its memory is short."""

from __future__ import annotations

import weakref
from dataclasses import replace
from types import SimpleNamespace

import pytest
import torch

from jsd import device
from jsd.device import (
    CPU_ROWS,
    FEW,
    MANY,
    MOST_ROWS,
    Fitting,
    in_halves,
    is_lost,
    max_batch_rows,
    released,
    rows_that_fit,
    run_unet,
    run_vae,
)
from jsd.errors import MemoryShortError
from jsd.graphs import GraphedUNet
from tests.recorder import Recorder

MB = 1_000_000
SHORT = [
    torch.OutOfMemoryError("CUDA out of memory"),
    MemoryError(),
    RuntimeError("DefaultCPUAllocator: can't allocate memory"),
    RuntimeError("CUDNN_STATUS_INTERNAL_ERROR: out of memory"),
]


@pytest.mark.parametrize(
    ("free", "rows"), [(100_000 * MB, MOST_ROWS), (10_000 * MB, 29), (2_000 * MB, 1), (0, 1)], ids=str
)
def test_the_rows_that_fit_leave_memory_for_the_decoding(free, rows):
    few, many = (500 + 200 * n for n in (FEW, MANY))  # MB: 500 per call and 200 per row
    assert rows_that_fit(free, few * MB, many * MB, decoding=2_600 * MB) == rows


def test_the_rows_that_fit_leave_memory_for_the_graphs():
    few, many = ((500 + 200 * n) * MB for n in (FEW, MANY))
    assert rows_that_fit(10_000 * MB, few, many, 2_600 * MB, graphs=16) == 11  # 29 without them


def test_rows_that_take_no_memory_are_limited_all_the_same():
    assert rows_that_fit(100 * MB, 0, 0, 0) == MOST_ROWS


def test_nothing_is_measured_on_a_cpu(components, spied):
    assert max_batch_rows(spied) == CPU_ROWS
    assert spied.unet.calls == []


def test_the_measured_calls_have_the_models_own_size(spied, components, monkeypatch):
    run_unet(spied, 3)
    assert spied.unet.calls == [3]
    seen = []
    decode = components.vae.decode
    monkeypatch.setattr(components.vae, "decode", lambda z: seen.append(tuple(z.shape)) or decode(z))
    run_vae(components)
    cells = components.defaults.width // components.defaults.cell
    assert seen == [(1, components.vae.config.latent_channels, cells, cells)]


def test_a_gpu_too_small_for_the_measurement_gets_few_rows(components, monkeypatch):
    def run_unet(components, rows):
        if rows == MANY:
            raise torch.OutOfMemoryError("CUDA out of memory")

    monkeypatch.setattr(device, "run_unet", run_unet)
    monkeypatch.setattr(device, "run_vae", lambda components: None)
    for name in ("empty_cache", "reset_peak_memory_stats", "synchronize"):
        monkeypatch.setattr(torch.cuda, name, lambda *_: None)
    for name in ("memory_allocated", "max_memory_allocated"):
        monkeypatch.setattr(torch.cuda, name, lambda _: 0)
    gpu = replace(components, device=torch.device("cuda"))
    assert max_batch_rows(gpu) == FEW
    assert device.decode_batch(gpu) > device.decode_batch(components) == 1


@pytest.mark.parametrize("graphed", [False, True])
def test_a_gpus_rows_are_measured_after_a_call_that_warms_up(components, monkeypatch, graphed):
    """A call takes 500 MB and 200 MB per row, decoding 650 MB, and the first call of all 3 GB more."""
    calls, taken = [], {}

    def run_unet(components, rows):
        taken["most"] = (500 + 200 * rows + (0 if calls else 3000)) * MB
        calls.append(rows)

    monkeypatch.setattr(device, "run_unet", run_unet)
    monkeypatch.setattr(device, "run_vae", lambda components: taken.update(most=650 * MB))
    for name in ("empty_cache", "reset_peak_memory_stats", "synchronize"):
        monkeypatch.setattr(torch.cuda, name, lambda *_: None)
    monkeypatch.setattr(torch.cuda, "memory_allocated", lambda _: 0)
    monkeypatch.setattr(torch.cuda, "max_memory_allocated", lambda _: taken["most"])
    monkeypatch.setattr(torch.cuda, "mem_get_info", lambda _: (10_000 * MB, 16_000 * MB))
    gpu = replace(components, device=torch.device("cuda"))
    if graphed:
        gpu.unet = GraphedUNet(components.unet, Recorder())
    assert max_batch_rows(gpu) == (11 if graphed else 29)
    assert calls == [1, FEW, MANY]


def test_what_fits_is_remembered_and_a_passing_shortage_is_forgotten():
    fitting, room, tried = Fitting(), 3, []

    def call(count):
        tried.append(count)
        if count > room:
            raise SHORT[0]
        return count

    shape = (4, 128, 128)
    assert [fitting.call(shape, 8, call) for _ in range(3)] == [2, 2, 2]
    assert tried == [8, 4, 2, 2, 2]
    assert fitting.call((4, 64, 64), 3, call) == 3  # another size is not concerned
    for _ in range(2 * Fitting.RETRY):
        fitting.call(shape, 8, call)
    assert tried.count(8) == 2  # a vain try
    room = 8
    for _ in range(2 * Fitting.RETRY + 1):
        fitting.call(shape, 8, call)
    assert tried[-1] == 8
    assert fitting.call(shape, 8, call) == 8


@pytest.mark.parametrize("error", SHORT, ids=repr)
def test_a_call_that_does_not_fit_is_tried_with_half_the_count(error):
    tried = []

    def call(count):
        tried.append(count)
        if count > 2:
            raise error
        return "done"

    assert in_halves(call, 9) == ("done", 2)
    assert tried == [9, 4, 2]


@pytest.mark.parametrize("error", SHORT, ids=repr)
def test_a_call_that_does_not_fit_alone_says_what_to_do(error):
    def call(count):
        raise error

    with pytest.raises(MemoryShortError, match="take a smaller width and height") as caught:
        in_halves(call, 8)
    assert caught.value.__cause__ is error


def test_a_gpus_cache_is_emptied_before_the_next_try(monkeypatch):
    log = []
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    monkeypatch.setattr(torch.cuda, "empty_cache", lambda: log.append("emptied"))

    def call(count):
        log.append(count)
        if count > 2:
            raise SHORT[0]

    in_halves(call, 4)
    assert log == [4, "emptied", 2]


def test_another_error_is_raised_at_once():
    tried = []

    def call(count):
        tried.append(count)
        raise RuntimeError("shapes do not match")

    with pytest.raises(RuntimeError, match="shapes do not match"):
        in_halves(call, 8)
    assert tried == [8]


def test_a_released_error_holds_no_tensors():
    def fail():
        tensor = torch.zeros(3)
        held.append(weakref.ref(tensor))
        raise ValueError("too many")

    held = []
    try:
        try:
            fail()
        except ValueError as error:
            raise RuntimeError("outer") from error
    except RuntimeError as error:
        caught = error
    assert held[0]() is not None
    assert released(caught) is caught
    assert held[0]() is None


def test_a_mark_is_set_on_the_models_own_gpu(monkeypatch):
    monkeypatch.setattr(torch.cuda, "current_stream", lambda where: SimpleNamespace(record_event=lambda: str(where)))
    assert device.mark(torch.device("cuda", 1)) == "cuda:1"
    assert device.mark(torch.device("cpu")) is None


def test_only_an_accelerators_own_error_means_that_it_is_lost():
    assert is_lost(torch.AcceleratorError("CUDA error: unspecified launch failure"))
    assert not any(is_lost(error) for error in SHORT)
