"""A step only queues work for a GPU: it reads nothing back, mixes in nothing of the CPU, and copies only pinned noise.

The GPU here is one of torch's fake devices: its tensors have a device and a shape, but no numbers.
"""

from __future__ import annotations

from dataclasses import replace

import pytest
import torch
from torch._subclasses.fake_tensor import DataDependentOutputException, FakeTensorMode
from torch.utils._python_dispatch import TorchDispatchMode

from jsd import sampling
from jsd.request import SCHEDULER_NAMES
from tests.engine.conftest import TWELVE
from tests.stock import DRAWS_NOISE

GPU = torch.device("lazy", 0)  # a kind of device that torch knows in every build, and that nothing here uses


class Copies(TorchDispatchMode):
    """Lists the copies from the CPU: for each, whether it waits for the GPU."""

    def __init__(self):
        super().__init__()
        self.waits = []

    def __torch_dispatch__(self, func, types, args=(), kwargs=None):
        result = func(*args, **(kwargs or {}))
        if isinstance(result, torch.Tensor) and result.device == GPU:
            cpu = [value for value in args if isinstance(value, torch.Tensor) and value.device.type == "cpu"]
            self.waits += [not (kwargs or {}).get("non_blocking", False) for value in cpu if value.ndim]
        return result


class Event:
    def __init__(self, number, log):
        self.number, self.log = number, log

    def synchronize(self):
        self.log.append(f"waits for {self.number}")


@pytest.fixture
def events(monkeypatch):
    """The log of a fake stream: which steps are marked, and which are waited for."""
    log, numbers = [], iter(range(100))

    def mark(device):
        log.append(f"marks {(number := next(numbers))}")
        return Event(number, log)

    monkeypatch.setattr(sampling, "mark", mark)
    return log


def on_gpu(value):
    return torch.empty(value.shape, dtype=value.dtype, device=GPU)


def drawn(components, requests, steps):
    """Prepare requests on the CPU, and take steps with them on the fake GPU. Returns the waits of all copies."""
    jobs = [sampling.prepare(components, request) for request in requests]
    gpu = replace(components, device=GPU, unet=lambda x, t, context, return_dict: (x * context.mean() + t.mean(),))
    gpu.unet.config = components.unet.config
    with FakeTensorMode(allow_non_fake_inputs=True), Copies() as copies:
        for job in jobs:
            for name in ("state", "steps", "context", "guidance_scale"):
                setattr(job, name, on_gpu(getattr(job, name)))
            if job.source:
                source = job.source
                job.source = replace(source, z=on_gpu(source.z), noise=on_gpu(source.noise), mask=on_gpu(source.mask))
        for _ in range(steps):
            sampling.step(gpu, jobs, max_rows=3)
        assert all(job.state.device == GPU for job in jobs)
    return copies.waits


@pytest.mark.parametrize("name", SCHEDULER_NAMES)
def test_a_step_reads_nothing_back_and_copies_at_most_its_noise(components, events, name):
    request = replace(TWELVE, scheduler=name)
    waits = drawn(components, [request, replace(request, num_outputs=2)], steps=3)
    assert waits == [False] * (2 * 3 if name in DRAWS_NOISE else 0)


def test_inpainting_copies_nothing_either(components, events, photo, mask):
    request = replace(TWELVE, image=photo, mask=mask, width=80, height=64, scheduler="DDIM")
    assert drawn(components, [request], steps=3) == []


def test_a_step_waits_for_the_one_before_it_and_for_no_other(components, events):
    drawn(components, [TWELVE, TWELVE], steps=3)
    assert events == ["marks 0", "marks 1", "waits for 0", "marks 2", "waits for 1"]


def test_the_fake_gpu_notices_what_it_is_here_to_notice():
    with FakeTensorMode(allow_non_fake_inputs=True), Copies() as copies:
        with pytest.raises(DataDependentOutputException):
            torch.zeros(1, device=GPU).item()
        with pytest.raises(RuntimeError, match="same device"):
            torch.zeros(2, device=GPU) + torch.zeros(2)
        torch.zeros(2).to(GPU)
    assert copies.waits == [True]
