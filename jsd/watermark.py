"""The invisible watermark of a generated picture: `embed` writes it, `detect` finds it.

The watermark has 1024 bits, in the method dwtDctSvd of the package invisible-watermark: a block of 8 x 8 pixels
carries one bit, in the blue-yellow channel U. The bits repeat in a larger picture. A picture counts as marked if at
least as many bits agree as happens by chance once in a million unmarked pictures (figures: docs/watermark.md).
"""

from __future__ import annotations

import hashlib
import math
from functools import cache
from types import ModuleType
from typing import NamedTuple

import numpy as np
import torch
from PIL import Image

from jsd.errors import InputError, MissingPackageError

# A hash, so that no drawing has this pattern by itself.
BITS = [
    int(bit) for byte in hashlib.shake_256(b"made by Japanese Stable Diffusion").digest(128) for bit in f"{byte:08b}"
]
SCALE = 36  # the package's default strength: a bit changes U by 1 or 2 of 256 levels
HEADROOM = 3  # pixels are kept this far below 255, because in white the watermark would be clipped away
MIN_PIXELS = 256 * 256  # the package reads no smaller pictures
CHANCE = 1e-6
SQUARINGS = 8  # (0.87 ** 2) ** (2 ** 8) is below 1e-30


class Detection(NamedTuple):
    """What `detect` found: the share of bits that agree, and the `chance` that an unmarked picture agrees as much."""

    agreement: float
    chance: float

    @property
    def marked(self) -> bool:
        """Whether the picture counts as marked: so much agreement is too unlikely to be chance."""
        return self.chance < CHANCE


def can_mark(size: tuple[int, int]) -> bool:
    """Whether a picture of `size` (width, height) in pixels is large enough for the watermark."""
    return size[0] * size[1] >= MIN_PIXELS


def embed(image: Image.Image) -> Image.Image:
    """Return `image` as RGB with the watermark. A picture that is too small (see `can_mark`) is returned unchanged."""
    if not can_mark(image.size):
        return image
    return Image.fromarray(mark(torch.from_numpy(np.array(image.convert("RGB")))[None])[0].numpy())


@torch.inference_mode()
def mark(pixels: torch.Tensor) -> torch.Tensor:
    """Return RGB pictures with the watermark: uint8 (n, h, w, 3), computed where `pixels` lie.

    Pictures that are too small (see `can_mark`) are returned unchanged. The watermark is that of the package's method
    dwtDctSvd, which changes the largest singular value of a block's DCT. The DCT is orthogonal. So it changes that of
    the block itself, and with singular vectors u and v the block changes by a multiple of u v^T.
    """
    n, height, width, _ = pixels.shape
    if not can_mark((width, height)):
        return pixels
    marked = pixels.short().clamp(max=255 - HEADROOM)

    # The package's own `encode` swaps horizontal and vertical details, which leaves coloured fringes at edges. The bits
    # are only in the low band (Haar: half the sum of 2 x 2 pixels). So this changes only that band, and spreads the
    # change over the 2 x 2 pixels.
    rows, columns = height // 8, width // 8  # of blocks
    covered = marked[:, : rows * 8, : columns * 8]
    pairs = covered[:, ::2] + covered[:, 1::2]
    r, g, b = (pairs[:, :, ::2] + pairs[:, :, 1::2]).double().unbind(-1)
    low = (0.492 * (b - (0.299 * r + 0.587 * g + 0.114 * b)) + 4 * 128) / 2
    blocks = low.view(n, rows, 4, columns, 4).permute(2, 4, 0, 1, 3).reshape(4, 4, -1)
    number = torch.arange(rows * columns, device=pixels.device) % len(BITS)
    bits = torch.tensor(BITS, dtype=torch.float64).to(pixels.device)[number].repeat(n)
    change = _change(blocks, bits).view(4, 4, n, rows, columns).permute(2, 3, 0, 4, 1).reshape(low.shape) / 2

    # Only U changes. To keep the brightness, green loses what blue gains.
    change = torch.stack([-0.395 * change, 2.032 * change], dim=-1).round().short()
    covered[..., 1:] += change.repeat_interleave(2, dim=1).repeat_interleave(2, dim=2)
    return marked.clamp(0, 255).byte()


def _change(blocks: torch.Tensor, bits: torch.Tensor) -> torch.Tensor:
    """Return the change of `blocks`, (4, 4, count), that writes `bits`, (count,), into their largest singular values.

    All numbers of a block lie between 34 and 478, as U lies between 17 and 239. So its second singular value is below
    0.87 of the first (Birkhoff's theorem on positive matrices), and after SQUARINGS only u u^T is left of B B^T.
    """
    gram = (blocks[:, None] * blocks[None]).sum(2)
    for _ in range(SQUARINGS):
        gram = gram / gram.diagonal().sum(-1)
        gram = (gram[:, :, None] * gram[None]).sum(1)
    u = gram[0] / gram[0].norm(dim=0)
    v = (u[:, None] * blocks).sum(0)
    largest = v.norm(dim=0)
    wanted = (largest // SCALE + 0.25 + 0.5 * bits) * SCALE
    return ((wanted - largest) / largest) * u[:, None] * v[None]


def detect(image: Image.Image) -> Detection:
    """Read the bits in `image` and return how far they agree with the watermark, as a `Detection`.

    Raises `InputError` for a picture of fewer than 256 x 256 pixels in all, and `MissingPackageError`.
    """
    if not can_mark(image.size):
        raise InputError("image", "{} x {} pixels can't hold a mark; 65536 are needed", image.width, image.height)
    bgr = np.ascontiguousarray(np.asarray(image.convert("RGB"))[..., ::-1])
    found = package().WatermarkDecoder("bits", len(BITS)).decode(bgr, "dwtDctSvd")
    n = len(BITS)
    agree = sum(bool(bit) == bool(wanted) for bit, wanted in zip(found, BITS, strict=True))
    return Detection(agree / n, sum(math.comb(n, k) for k in range(agree, n + 1)) / 2**n)


@cache
def package() -> ModuleType:
    """Import the package invisible-watermark and return its module. The first call takes seconds because of OpenCV.
    Only reading a watermark needs it.

    Raises `MissingPackageError` if it can't be imported.
    """
    try:
        import imwatermark
        import imwatermark.dwtDctSvd
    except ImportError as error:
        raise MissingPackageError(
            "the watermark needs invisible-watermark and OpenCV, which can't be imported ({}); run "
            "script/bootstrap, or install the system's libgl1 and libglib2.0-0",
            error,
        ) from error
    return imwatermark
