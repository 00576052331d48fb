"""CUDA graphs, with a recorder that needs no GPU: it repeats the recorded call."""

from __future__ import annotations

import gc
from contextlib import contextmanager, nullcontext
from unittest.mock import MagicMock

import pytest
import torch

from jsd.graphs import LARGE, LARGE_ROWS, TRIES, CudaRecorder, GraphedUNet, rows_to_record
from jsd.sampling import generate
from tests.engine.conftest import CAT
from tests.fakes import psnr
from tests.recorder import Recorder


@pytest.fixture
def recorder():
    return Recorder()


@pytest.fixture
def unet(spied, recorder):
    return GraphedUNet(spied.unet, recorder)


def inputs(rows, seed=0, side=4):
    generator = torch.Generator().manual_seed(seed)
    x, context = (torch.randn(rows, *shape, generator=generator) for shape in ((4, side, side), (24, 32)))
    return x, torch.linspace(1, 999, rows), context


@torch.no_grad()
def test_a_replayed_call_predicts_what_the_unet_predicts(unet, recorder, components):
    for seed in range(4):
        for rows in (1, 2, 5, 7, 16):
            (eps,) = unet(*inputs(rows, seed))
            (expected,) = components.unet(*inputs(rows, seed), return_dict=False)
            assert torch.allclose(eps, expected, atol=1e-5)
    assert recorder.recorded == 5
    assert recorder.replayed == 5 * 3  # the first call of each kind runs without a graph


@torch.no_grad()
def test_the_rows_that_fill_up_a_graph_change_nothing(unet):
    for _ in range(2):
        unet(*inputs(6, seed=1))
    (alone,) = unet(*inputs(5, seed=2))
    for part in unet(*inputs(6, seed=3)):
        assert part.isfinite().all()
    (again,) = unet(*inputs(5, seed=2))
    assert torch.equal(alone, again)


@torch.no_grad()
def test_a_result_is_not_overwritten_by_the_next_call(unet):
    for _ in range(2):
        unet(*inputs(2))
    (first,) = unet(*inputs(2, seed=1))
    kept = first.clone()
    unet(*inputs(2, seed=2))
    assert torch.equal(first, kept)


@torch.no_grad()
def test_large_calls_and_other_sizes_have_no_part_in_a_graph(unet, recorder, spied):
    for _ in range(3):
        unet(*inputs(LARGE_ROWS + 1))
    assert recorder.recorded == 0
    for side in (4, 6):
        for _ in range(2):
            unet(*inputs(2, side=side))
    assert recorder.recorded == 2
    assert spied.unet.calls[-1] == 2


@torch.no_grad()
def test_more_rows_of_a_small_unet_are_recorded(spied, recorder, components):
    small, large = components.unet, torch.nn.Linear(LARGE // 1000, 1000, device="meta")
    assert rows_to_record(large) == LARGE_ROWS < rows_to_record(small)
    unet = GraphedUNet(spied.unet, recorder, rows_to_record(small))
    for _ in range(3):
        (eps,) = unet(*inputs(LARGE_ROWS + 1))
    assert torch.allclose(eps, small(*inputs(LARGE_ROWS + 1), return_dict=False)[0], atol=1e-5)
    assert recorder.recorded == 1


@torch.no_grad()
def test_larger_rows_count_for_as_many_more(unet, recorder):
    for rows, side in ((4, 8), (5, 8), (1, 20)):  # the model's own rows have a side of 4
        for _ in range(3):
            unet(*inputs(rows, side=side))
    assert recorder.recorded == 1


@torch.no_grad()
def test_only_the_graphs_used_last_are_kept(spied, recorder):
    unet = GraphedUNet(spied.unet, recorder, most=2)
    for rows in (1, 1, 2, 2, 3, 3):
        unet(*inputs(rows))
    assert recorder.recorded == 3
    unet(*inputs(3))
    assert recorder.recorded == 3
    unet(*inputs(1))
    unet(*inputs(1))
    assert recorder.recorded == 4


@torch.no_grad()
@pytest.mark.parametrize(
    ("failure", "tries_again"),
    [(RuntimeError("operation not permitted when stream is capturing"), False), (torch.OutOfMemoryError("out"), True)],
)
def test_a_call_that_can_not_be_recorded_runs_without_a_graph(unet, recorder, components, failure, tries_again, capsys):
    recorder.failure = failure
    for _ in range(3):
        (eps,) = unet(*inputs(2))
    assert torch.allclose(eps, components.unet(*inputs(2), return_dict=False)[0], atol=1e-5)
    assert f"no CUDA graph of 2 rows: {type(failure).__name__}" in capsys.readouterr().err
    recorder.failure = None
    for _ in range(2):
        unet(*inputs(2))
    assert recorder.recorded == tries_again


@torch.no_grad()
def test_recording_is_given_up_after_some_shortages_of_memory(unet, recorder, capsys):
    recorder.failure = torch.OutOfMemoryError("out")
    for _ in range(4 * TRIES):
        unet(*inputs(2))
    assert capsys.readouterr().err.count("no CUDA graph") == TRIES


@torch.no_grad()
def test_weights_that_change_in_place_count_at_once(unet, components):
    import copy

    unet.unet.unet = copy.deepcopy(components.unet)
    for _ in range(2):
        unet(*inputs(2))
    unet.unet.unet.conv_out.bias += 1
    assert torch.allclose(unet(*inputs(2))[0], components.unet(*inputs(2), return_dict=False)[0] + 1, atol=1e-4)


def test_a_picture_drawn_with_graphs_is_the_same(components, spied, unet, recorder):
    spied.unet = unet
    plain = generate(components, CAT).images[0]
    assert psnr(generate(spied, CAT).images[0], plain) >= 50
    assert recorder.replayed == CAT.resolve(components.defaults).num_inference_steps - 1


def test_a_pool_of_memory_is_left_when_the_last_of_its_graphs_is_gone(monkeypatch):
    """CUDA frees such a pool, and torch refuses to record into it again."""
    pools, used = iter("abc"), []

    class Graph:
        def replay(self):
            pass

    def graph(recorded, pool, capture_error_mode):
        used.append((pool, capture_error_mode))
        return nullcontext()

    for name, value in {"CUDAGraph": Graph, "graph": graph, "graph_pool_handle": lambda: next(pools)}.items():
        monkeypatch.setattr(torch.cuda, name, value)
    devices = []
    monkeypatch.setattr(torch.cuda, "device", lambda device: devices.append(device) or nullcontext())
    monkeypatch.setattr(torch.cuda, "current_stream", lambda device: "own stream")
    record = CudaRecorder(torch.device("cuda", 1))
    kept = [record(lambda: "eps") for _ in range(3)]
    assert [result for _, result in kept] == ["eps"] * 3
    del kept[1:]
    kept.append(record(lambda: "eps"))
    kept.clear()
    gc.collect()
    record(lambda: "eps")
    assert used == [(pool, "thread_local") for pool in "aaaab"]
    assert set(devices) == {torch.device("cuda", 1)}


@pytest.mark.parametrize(("error", "goes_on"), [(torch.OutOfMemoryError("out"), True), (RuntimeError("no"), False)])
def test_a_recording_that_failed_leaves_the_thread_on_its_own_stream(monkeypatch, error, goes_on):
    streams = []

    @contextmanager
    def graph(*_, **__):
        streams.append("recording")
        yield

    fakes = {"CUDAGraph": MagicMock, "graph": graph, "graph_pool_handle": object, "device": lambda _: nullcontext()}
    fakes |= {"current_stream": lambda _: "own", "set_stream": streams.append}
    for name, value in fakes.items():
        monkeypatch.setattr(torch.cuda, name, value)
    record = CudaRecorder(torch.device("cuda"))

    def fail():
        raise error

    with pytest.raises(type(error)):
        record(fail)
    assert streams == ["recording", "own"]
    if goes_on:
        assert record(lambda: "eps")[1] == "eps"
    else:
        with pytest.raises(RuntimeError, match="failed before"):
            record(lambda: "eps")
