"""What makes a CPU draw fast: the type it computes in, how the UNet does it in bfloat16, and how many threads do it.

What the UNet does faster depends on the processor (docs/cpu.md), so it is measured. The autoencoder is in channels_last
everywhere (`jsd.model.load`).
"""

from __future__ import annotations

import copy
import functools
import math
import os
import time
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

from jsd.language import Text

if TYPE_CHECKING:
    import torch
    from diffusers import UNet2DConditionModel
    from diffusers.models.attention_processor import Attention
    from diffusers.models.unets.unet_2d_blocks import CrossAttnDownBlock2D

WIDE = 640  # channels. A UNet whose widest level has fewer spends its time on launching layers, not on arithmetic.
CLEARLY = 0.7  # of the time of float32. Ratios seen: 0.48 to 0.53 with units for bfloat16, 2.2 to 4.7 without.
NOT_SLOWER = 1.1  # of the time of the usual layout. Ratios of a UNet: 0.86 to 0.95 without AMX, 1.24 with it.
ROUNDS = 2
SIDE, TOKENS = 32, 77  # of the latent and of the text that a part of the UNet is measured with
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

    Without units for bfloat16 a convolution can take a hundred times as long. It is left out if the linear layer says
    enough.
    """
    import torch

    layers = [
        (torch.nn.Linear(width, 4 * width), torch.zeros(128, width)),
        (torch.nn.Conv2d(width, width, 3, padding=1), torch.zeros(1, width, 8, 8)),
    ]
    total = [0.0, 0.0]
    for layer, x in layers:
        kinds = [(copy.deepcopy(layer).to(dtype), x.to(dtype)) for dtype in (torch.float32, torch.bfloat16)]
        seconds = _seconds(*(functools.partial(module, y) for module, y in kinds))
        total = [sum_ + found for sum_, found in zip(total, seconds, strict=True)]
        if total[1] > CLEARLY * total[0]:
            break
    return total[1] / total[0]


def tune(unet: UNet2DConditionModel) -> list[Text]:
    """Set up a wide UNet in bfloat16, in place, for what this CPU does faster: attention in blocks or by torch's own
    kernel, and the layout in memory. Returns what was changed and why, for the log. This takes 1.5 s at full size.

    What is measured is the second level with attention, which does better or worse as the whole UNet does. Where
    bfloat16 is slow nothing is measured, as every call would take seconds. A choice changes the last bits of
    pictures, so its limit lies far from the ratios of processors.
    """
    import torch
    from diffusers.models.attention_processor import AttnProcessor2_0
    from diffusers.models.unets.unet_2d_blocks import CrossAttnDownBlock2D

    from jsd.attention import BlockedAttention, blocked_attention

    levels = [level for level in unet.down_blocks if isinstance(level, CrossAttnDownBlock2D) and _attention(level)]
    if not levels or max(unet.config.block_out_channels) < WIDE or bfloat16_ratio(WIDE // 2) > CLEARLY:
        return []
    level, changed = levels[:2][-1], []
    attention = _attention(level)
    ones = functools.partial(torch.ones, device=unet.device, dtype=unet.dtype)
    q = ones(1, attention.heads, SIDE * SIDE, attention.to_q.out_features // attention.heads)
    kernel, blocks = _seconds(
        lambda: torch.nn.functional.scaled_dot_product_attention(q, q, q), lambda: blocked_attention(q, q, q)
    )
    if blocks <= CLEARLY * kernel and not unet.config.upcast_attention:
        old = unet.attn_processors.items()
        unet.set_attn_processor({name: BlockedAttention() if type(p) is AttnProcessor2_0 else p for name, p in old})
        changed.append(Text("attention in blocks ({:.2f} of the usual time)", blocks / kernel))
    inputs = (ones(1, level.resnets[0].in_channels, SIDE, SIDE), ones(1, unet.time_embedding.linear_2.out_features))
    context = ones(1, TOKENS, unet.config.cross_attention_dim)
    kinds = level, copy.deepcopy(level).to(memory_format=torch.channels_last)
    usual, last = _seconds(*(functools.partial(kind, *inputs, context) for kind in kinds))
    if last <= NOT_SLOWER * usual:
        _to_channels_last(unet)
        changed.append(Text("UNet in channels_last ({:.2f} of the usual time)", last / usual))
    return changed


def _attention(level: CrossAttnDownBlock2D) -> Attention | None:
    """Return the first self-attention of a level, None if it has none of the usual form."""
    blocks = getattr(level.attentions[0], "transformer_blocks", None)
    return blocks[0].attn1 if blocks else None


def _to_channels_last(module: torch.nn.Module) -> None:
    """Bring the weights of convolutions into channels_last, each in its own memory.

    `module.to(memory_format=...)` takes new memory, and what it frees is of no use: 0.6 GB at full size.
    """
    import torch

    for weight in module.parameters():
        if weight.ndim == 4 and weight.is_contiguous():
            moved = weight.data.movedim(1, 3).clone(memory_format=torch.contiguous_format)
            weight.data = weight.data.view(moved.shape).copy_(moved).movedim(3, 1)


def _seconds(*calls: Callable[[], object]) -> list[float]:
    """Return the seconds that each call takes, which run in turn.

    They run on one thread, whose own CPU time is counted: so other programs hardly matter. The least of ROUNDS counts.
    """
    import torch

    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    try:
        with torch.inference_mode():
            seconds: list[list[float]] = [[] for _ in calls]
            for _ in range(1 + ROUNDS):  # the first one also makes the libraries choose their kernels
                for call, found in zip(calls, seconds, strict=True):
                    began = time.thread_time()
                    call()
                    found.append(time.thread_time() - began)
    finally:
        torch.set_num_threads(threads)
    return [min(found[1:]) for found in seconds]


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
