"""Tests of what only a GPU shows. They run wherever torch finds CUDA.

With JSD_TEST_DEVICE=cpu they run on a CPU, where graphs are played by `tests.recorder` and a shortage of memory by
`scarce`. That tells nothing about a GPU, but it shows that the tests reach their assertions.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from torch.utils._python_dispatch import TorchDispatchMode

from jsd.graphs import CudaRecorder, GraphedUNet
from jsd.model import Components, load
from tests.recorder import Recorder

HERE = Path(__file__).parent
DEVICE = torch.device(os.environ.get("JSD_TEST_DEVICE") or "cuda")
ON_GPU = DEVICE.type == "cuda"
REASON = "torch finds no CUDA here (JSD_TEST_DEVICE=cpu runs these tests on a CPU)"
DTYPES = {"fp32": torch.float32, "fp16": torch.float16}
# The least PSNR, in dB, of two ways to draw the same picture. In float32, sums in another order change a value by 1e-6,
# and what is left is the rounding to 8 bits: 50 dB. In float16 a value has 11 bits. Six steps with guidance 3 add that
# up to 54 to 58 dB, as measured with each sampler, ours beside stock, on a CPU. 45 leaves room for the order in which a
# GPU adds. Two different pictures have less than 20 dB.
ALIKE = {torch.float32: 50, torch.float16: 45}
MB = 1 << 20


def pytest_configure(config: pytest.Config) -> None:
    config.addinivalue_line("markers", "gpu: needs a GPU, or JSD_TEST_DEVICE=cpu")


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    for item in items:
        if HERE in item.path.parents:
            item.add_marker(pytest.mark.gpu)
            if ON_GPU and not torch.cuda.is_available():
                item.add_marker(pytest.mark.skip(reason=REASON))


def pytest_terminal_summary(terminalreporter: pytest.TerminalReporter) -> None:
    skipped = [report for report in terminalreporter.stats.get("skipped", []) if REASON in str(report.longrepr)]
    if skipped:
        terminalreporter.write_line(f"{len(skipped)} tests of tests/gpu are skipped: {REASON}")


@pytest.fixture(autouse=True)
def _exact() -> Iterator[None]:
    """TF32, which convolutions use by default, has no more bits than float16. So float32 tests go without it."""
    before = torch.backends.cudnn.allow_tf32
    torch.backends.cudnn.allow_tf32 = False
    yield
    torch.backends.cudnn.allow_tf32 = before


@pytest.fixture(scope="session", params=DTYPES)
def components(request: pytest.FixtureRequest, tiny_folder: Path) -> Components:
    """The tiny model on the device, in float32 and in float16."""
    return load(tiny_folder, DEVICE, DTYPES[request.param])


@pytest.fixture(scope="session")
def on_cpu(tiny_folder: Path) -> Components:
    """The tiny model on the CPU, in float32."""
    return load(tiny_folder)


@pytest.fixture
def graphed(components: Components) -> Components:
    """The tiny model with a UNet that is called by graphs."""
    return with_graphs(components)


def with_graphs(components: Components) -> Components:
    recorder = CudaRecorder(DEVICE) if ON_GPU else Recorder()
    return replace(components, unet=GraphedUNet(components.unet, recorder))


class _Scarce(TorchDispatchMode):
    """Refuses every tensor of more than `room` bytes."""

    def __init__(self, room: int):
        super().__init__()
        self._room = room

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        result = func(*args, **(kwargs or {}))
        if isinstance(result, torch.Tensor) and result.nbytes > self._room:
            raise torch.OutOfMemoryError(f"out of memory on purpose: {result.nbytes} bytes")
        return result


@contextmanager
def scarce(room: int) -> Iterator[None]:
    """Context manager: this thread can't get more than about `room` bytes of the device's memory."""
    if not ON_GPU:
        with _Scarce(room):
            yield
        return
    torch.cuda.synchronize()
    torch.cuda.empty_cache()
    total = torch.cuda.mem_get_info()[1]
    torch.cuda.set_per_process_memory_fraction(min(1.0, (torch.cuda.memory_reserved() + room) / total))
    try:
        yield
    finally:
        torch.cuda.set_per_process_memory_fraction(1.0)


@pytest.fixture
def hungry() -> Iterator[Callable[[torch.nn.Module, int], None]]:
    """A function that makes a module take so many more bytes of memory per sample, while it computes."""
    hooks = []

    def hungry(module: torch.nn.Module, bytes_per_sample: int) -> None:
        meals = []

        def take(module: torch.nn.Module, arguments: tuple, settings: dict) -> None:
            x = next(value for value in (*arguments, *settings.values()) if isinstance(value, torch.Tensor))
            meals.append(torch.empty(len(x) * bytes_per_sample, dtype=torch.uint8, device=DEVICE))

        hooks.append(module.register_forward_pre_hook(take, with_kwargs=True))
        hooks.append(module.register_forward_hook(lambda *_: meals.clear(), always_call=True))

    yield hungry
    for hook in hooks:
        hook.remove()
