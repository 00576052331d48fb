"""Many requests share a GPU: each gets the picture it would get alone, and cancelled ones leave nothing behind."""

from __future__ import annotations

import threading
from concurrent.futures import CancelledError, wait
from dataclasses import replace

import pytest
import torch

from jsd.device import MOST_ROWS
from jsd.engine import Engine
from jsd.request import Request
from jsd.sampling import generate
from tests.engine.conftest import CAT, SECONDS
from tests.fakes import psnr
from tests.gpu.conftest import ALIKE, DEVICE, MB, ON_GPU

MIXED = [
    Request("猫", seed=1, num_inference_steps=9, scheduler="PNDM"),
    Request("富士山", seed=2, num_inference_steps=5, scheduler="K_HEUN", guidance_scale=3),
    Request("寿司", seed=3, num_outputs=3, scheduler="K_LMS"),
    Request("天狗", seed=4, guidance_scale=1, scheduler="LCM"),
    Request("鳥居", seed=5, width=80, height=64),
    Request("猫 油絵", seed=6, scheduler="K_EULER_ANCESTRAL", num_inference_steps=12),
    Request("赤い鳥居", seed=7, scheduler="UNI_PC", negative_prompt="油絵"),
    Request("富士山 白黒", seed=8, scheduler="DPM_SOLVER_PP_2M_KARRAS"),
]


def test_requests_that_share_calls_get_the_pictures_they_get_alone(components, graphed):
    with Engine(graphed) as engine:
        for _ in range(2):  # without graphs, and with them
            futures = [engine.submit(request) for request in MIXED]
            results = [future.result(SECONDS) for future in futures]
    assert max(result.batch_rows for result in results) > 6
    for request, result in zip(MIXED, results, strict=True):
        for ours, alone in zip(result.images, generate(components, request).images, strict=True):
            assert psnr(ours, alone) >= ALIKE[components.dtype]


def cancelling(futures, all_here, number):
    """Return a progress callback that cancels request `number` at that step, once all requests are there."""

    def progress(done, total):
        assert all_here.wait(SECONDS)
        if done == number:
            futures[number].cancel()

    return progress


def test_requests_cancelled_under_load_change_no_other_picture_and_leave_no_memory_behind(components, graphed):
    requests = [replace(CAT, seed=seed, num_inference_steps=30) for seed in range(12)]
    with Engine(graphed) as engine:
        engine.submit(CAT).result(SECONDS)
        taken = []
        for _ in range(3):
            futures, all_here = [], threading.Event()
            for number, request in enumerate(requests):
                futures.append(engine.submit(request, cancelling(futures, all_here, number) if number % 2 else None))
            all_here.set()
            assert not wait(futures, SECONDS).not_done
            taken.append(torch.cuda.memory_allocated(DEVICE) if ON_GPU else 0)
    for future in futures[1::2]:
        with pytest.raises(CancelledError):
            future.result()
    for request, future in zip(requests[::2], futures[::2], strict=True):
        alone = generate(components, request).images[0]
        assert psnr(future.result().images[0], alone) >= ALIKE[components.dtype]
    assert taken[2] - taken[1] <= MB  # the first round may record graphs


@pytest.mark.skipif(not ON_GPU, reason="a CPU's memory is not measured")
def test_how_many_rows_fit_is_measured(graphed):
    with Engine(graphed) as engine:
        assert engine.max_batch_rows == MOST_ROWS  # of a tiny model
