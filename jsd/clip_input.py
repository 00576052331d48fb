"""The input of CLIP's image encoder, made from pixels on the device where they lie.

transformers' image processor does this with Pillow, on the CPU. `clip_input` gives the same numbers.
"""

from __future__ import annotations

import math
from functools import lru_cache
from typing import TYPE_CHECKING

import torch

if TYPE_CHECKING:
    from transformers import CLIPImageProcessorPil

BICUBIC = 3  # Pillow's number
BITS = 22  # of the fraction of Pillow's fixed-point weights


def stands_in(processor: CLIPImageProcessorPil, height: int, width: int) -> bool:
    """Whether `clip_input` can stand in for an image processor: that has to do all that CLIP's does, and nothing else.

    Pillow 13 resizes pictures that are more than twice as high as wide in another order, so these don't count.
    """
    own = processor
    if height > 2 * width:
        return False
    steps = own.do_resize and own.do_center_crop and own.do_rescale and own.do_normalize
    if not (steps and own.resample == BICUBIC and own.size.shortest_edge and not own.size.longest_edge):
        return False
    return max(own.crop_size.height, own.crop_size.width) <= own.size.shortest_edge


def clip_input(processor: CLIPImageProcessorPil, pixels: torch.Tensor) -> torch.Tensor:
    """Resize, crop and normalise RGB pictures, uint8 (n, h, w, 3), by the settings of `processor`.

    Returns float32 (n, 3, height, width) on the same device.
    """
    own = processor
    h, w = pixels.shape[1:3]
    short = own.size.shortest_edge
    h, w = (short, int(short * w / h)) if h <= w else (int(short * h / w), short)
    top, left = (h - own.crop_size.height) // 2, (w - own.crop_size.width) // 2
    x = resize(pixels, h, w)[:, top : top + own.crop_size.height, left : left + own.crop_size.width]
    mean, std = (
        torch.tensor(values, dtype=torch.float64, device=x.device) for values in (own.image_mean, own.image_std)
    )
    return ((x.double() * own.rescale_factor - mean) / std).float().movedim(-1, 1)


def resize(pixels: torch.Tensor, height: int, width: int) -> torch.Tensor:
    """Resize pictures, uint8 (n, h, w, 3), to (n, height, width, 3), to the bit as Pillow does with its filter BICUBIC.

    Pillow computes first the columns, then the rows, with whole numbers, and rounds to 8 bits after each. float64 holds
    these numbers exactly.
    """
    x = pixels.double()
    if x.shape[2] != width:
        x = _rounded(torch.einsum("ow,nhwc->nhoc", _weights(x.shape[2], width).to(x.device), x))
    if x.shape[1] != height:
        x = _rounded(torch.einsum("oh,nhwc->nowc", _weights(x.shape[1], height).to(x.device), x))
    return x.byte()


def _rounded(sums: torch.Tensor) -> torch.Tensor:
    return ((sums + 2 ** (BITS - 1)) / 2**BITS).floor().clamp(0, 255)


@lru_cache(64)
def _weights(before: int, after: int) -> torch.Tensor:
    """Return the weights of `before` pixels for each of `after`, (after, before), times 2^BITS, as whole numbers.

    The filter is Keys' cubic convolution with a = -0.5 (IEEE TASSP 29, 1981), widened where the picture gets smaller.
    """
    scale = before / after
    wide = max(scale, 1.0)
    weights = torch.zeros(after, before, dtype=torch.float64)
    for i in range(after):
        centre = (i + 0.5) * scale
        first = max(0, int(centre - 2 * wide + 0.5))
        values = [_cubic((k - centre + 0.5) / wide) for k in range(first, min(before, int(centre + 2 * wide + 0.5)))]
        for k, value in enumerate(values, first):
            weights[i, k] = math.floor(abs(value) / sum(values) * 2**BITS + 0.5) * math.copysign(1, value)
    return weights


def _cubic(x: float) -> float:
    x, a = abs(x), -0.5
    if x < 1:
        return ((a + 2) * x - (a + 3)) * x * x + 1
    return (((x - 5) * x + 8) * x - 4) * a if x < 2 else 0.0
