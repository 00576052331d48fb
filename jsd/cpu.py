"""What makes a CPU draw fast: the type it computes in, and how many threads do it.

The UNet keeps torch's usual memory layout: in channels_last its convolutions gain little, and its other layers lose
more (docs/cpu.md). The autoencoder is in channels_last everywhere (`jsd.model.load`).
"""

from __future__ import annotations

import copy
import math
import os
import time
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

from jsd.language import Text

WIDE = 640  # channels. A UNet whose widest level has fewer spends its time on launching layers, not on arithmetic.
CLEARLY = 0.7  # of the time of float32. Ratios seen: 0.48 to 0.53 with units for bfloat16, 2.2 to 4.7 without.
ROUNDS = 3
EXACT = ("text_encoder", "safety_checker")  # parts that stay in float32 beside a UNet in bfloat16


def faster_type(unet: Mapping[str, Any], measure: Callable[[int], float] | None = None) -> tuple[str, str]:
    """Return the type in which a CPU draws faster, "bf16" or "fp32", and why, for the log. `unet` is the UNet's config.

    A narrow UNet gains nothing from bfloat16. It gets "fp32" unmeasured, so its pictures are the same on all machines.
    A wide one is measured (`measure`, default: `bfloat16_ratio`), because an instruction set does not tell what the
    libraries make of it. bfloat16 has to be clearly faster: the ratios of processors lie far from CLEARLY on both
    sides, so a machine chooses the same type at every start, and a seed gives the same picture.
    """
    widths = unet.get("block_out_channels") or [WIDE]
    if not isinstance(widths, list | tuple) or not all(isinstance(width, int) for width in widths):
        widths = [0]  # whoever loads the model refuses this config
    widest = max(widths)
    if widest < WIDE:
        return "fp32", Text("a small UNet gains nothing from bf16")
    ratio = (measure or bfloat16_ratio)(min(widest // 2, WIDE))
    return "bf16" if ratio <= CLEARLY else "fp32", Text("bf16 takes {:.2f} of the time of fp32 here", ratio)


def bfloat16_ratio(width: int) -> float:
    """Return the time of bfloat16 as a share of that of float32, for a linear layer and a convolution of `width`
    channels. This takes less than 0.2 s.

    The types run in turn, on one thread, whose own CPU time is counted: so other programs hardly matter. Without units
    for bfloat16 a convolution can take a hundred times as long. It is left out if the linear layer says enough.
    """
    import torch

    layers = [
        (torch.nn.Linear(width, 4 * width), torch.zeros(128, width)),
        (torch.nn.Conv2d(width, width, 3, padding=1), torch.zeros(1, width, 8, 8)),
    ]
    types, total = (torch.float32, torch.bfloat16), [0.0, 0.0]
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    try:
        with torch.inference_mode():
            for layer, x in layers:
                calls = [(copy.deepcopy(layer).to(dtype), x.to(dtype)) for dtype in types]
                seconds: list[list[float]] = [[], []]
                for _ in range(1 + ROUNDS):  # the first one also makes the libraries choose their kernels
                    for (module, y), found in zip(calls, seconds, strict=True):
                        began = time.thread_time()
                        module(y)
                        found.append(time.thread_time() - began)
                total = [sum_ + min(found[1:]) for sum_, found in zip(total, seconds, strict=True)]
                if total[1] > CLEARLY * total[0]:
                    break
    finally:
        torch.set_num_threads(threads)
    return total[1] / total[0]


def core_limit(cgroups: Path = Path("/sys/fs/cgroup"), own: Path = Path("/proc/self/cgroup")) -> int | None:
    """Return how many cores the limits of this process's cgroups allow (`docker run --cpus`), None if that is no fewer
    than it could use anyway. A part of a core counts as one. Versions 1 and 2 of cgroups are read; other systems have
    none.
    """
    limits = []
    for line in _text(own).splitlines():
        _, controllers, place = line.split(":", 2)
        if controllers and "cpu" not in controllers.split(","):
            continue
        root, place = cgroups / "cpu" if controllers else cgroups, Path(place.lstrip("/"))
        # A limit may be that of a cgroup above. In a container the own one may be the root, whatever its name is.
        for folder in {root, *(root / each for each in (place, *place.parents))}:
            names = ("cpu.cfs_quota_us", "cpu.cfs_period_us") if controllers else ("cpu.max",)
            numbers = " ".join(_text(folder / name) for name in names).split()
            if len(numbers) == 2 and all(number.isdecimal() for number in numbers):  # not "max" or -1: no limit
                limits.append(math.ceil(int(numbers[0]) / int(numbers[1])))
    return min(limits) if limits and min(limits) < _affinity() else None


def cores() -> int:
    """Return how many cores this process may use, by its affinity and by the limits of its cgroups."""
    return core_limit() or _affinity()


def _affinity() -> int:
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


def _text(file: Path) -> str:
    """Return the content of a file, "" if there is none."""
    try:
        return file.read_text("utf-8")
    except OSError:
        return ""
