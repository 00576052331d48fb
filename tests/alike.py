"""How alike two drawings of the same request are. That depends on the device of the server that drew them."""

from __future__ import annotations

import os

import numpy as np
import torch
from PIL import Image

from tests.fakes import psnr

DEVICE = torch.device(os.environ.get("JSD_DEVICE") or ("cuda" if torch.cuda.is_available() else "cpu"))
# The least PSNR, in dB, of a request drawn in another batch. There floats are added in another order. A CPU draws in
# float32, where what is left is the rounding to 8 bits. A GPU draws in float16, which has 11 bits: the tiny model's
# pictures keep 54 dB, and a trained one follows its rounding further.
LEAST = 50 if DEVICE.type == "cpu" else 40
MEAN_SQUARE = 255**2 / 10 ** (LEAST / 10)  # the same, as an error of pixels


def assert_alike(one: Image.Image, other: Image.Image) -> None:
    """Two drawings of one request, in batches of any size."""
    assert psnr(one, other) >= LEAST


def assert_same(one: Image.Image, other: Image.Image) -> None:
    """Two drawings of one request, both alone. On a CPU they are equal. A GPU records its calls as graphs meanwhile,
    and may add in another order then.
    """
    if DEVICE.type != "cpu":
        assert_alike(one, other)
    else:
        assert np.array_equal(np.asarray(one), np.asarray(other))
