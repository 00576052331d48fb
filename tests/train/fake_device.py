"""A device without memory, for machines without a GPU. It shows that nothing a GPU would compute with stays on the CPU.

Its tensors have shapes and a device, and no values. As on a GPU, an operation on a tensor of this device and one of the
CPU is an error.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager, nullcontext
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
import torch
from torch._subclasses.fake_tensor import FakeTensorMode

DEVICE = torch.device("lazy", 0)  # a kind of device that torch knows in every build, and that nothing here uses
MODE = FakeTensorMode(allow_non_fake_inputs=True)  # one for all, because tensors of two modes do not mix
ACCELERATOR = SimpleNamespace(device=DEVICE, mixed_precision="no")


@contextmanager
def fake_device() -> Iterator[torch.device]:
    """Context manager that yields the device. Tensors made before its block may be used inside, as those of the CPU."""
    with pytest.MonkeyPatch.context() as patch, MODE:
        for name in ("item", "__float__"):
            patch.setattr(torch.Tensor, name, lambda tensor: 0.0)
        patch.setattr(
            torch.utils, "swap_tensors", lambda old, new: None
        )  # a module moves once; a second time is nothing
        patch.setattr(torch, "autocast", lambda device, **settings: nullcontext())
        yield DEVICE


def stand_in(devices: list[torch.device]) -> Callable[..., None]:
    """Return a stand-in for `jsd.train.trainer.train`, which computes one loss, and appends its device to `devices`."""

    def train(name: str, model: torch.nn.Module, loss_of: Any, *arguments: Any, **settings: Any) -> None:
        with fake_device():
            model.to(DEVICE)
            devices.append(loss_of(model, 0, np.random.default_rng(0))[0].device)

    return train
