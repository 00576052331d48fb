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
    """Return `image` as RGB with the watermark. A picture that is too small (see `can_mark`) is returned unchanged.

    Takes about 20 ms for 256 x 256 pixels and 90 ms for 512 x 512. Raises `MissingPackageError`.
    """
    if not can_mark(image.size):
        return image
    rgb = np.asarray(image.convert("RGB"), dtype=np.float64).clip(max=255 - HEADROOM)
    r, g, b = np.moveaxis(rgb, -1, 0)
    u = 0.492 * (b - (0.299 * r + 0.587 * g + 0.114 * b)) + 128

    # The package's own `encode` swaps horizontal and vertical details, which leaves coloured fringes at edges. The bits
    # are only in the low band (Haar: half the sum of 2 x 2 pixels). So this takes the change of that band from the
    # package and spreads it over the 2 x 2 pixels.
    h, w = (side // 4 * 2 for side in u.shape)
    low = u[: 2 * h, : 2 * w].reshape(h, 2, w, 2).sum(axis=(1, 3)) / 2
    marked = low.copy()
    package().dwtDctSvd.EmbedDwtDctSvd(BITS, len(BITS)).encode_frame(marked, SCALE)
    change = np.zeros_like(u)
    change[: 2 * h, : 2 * w] = np.kron((marked - low) / 2, np.ones((2, 2)))
    # Only U changes. To keep the brightness, green loses what blue gains.
    rgb += change[..., None] * (0, -0.395, 2.032)
    return Image.fromarray(rgb.round().clip(0, 255).astype(np.uint8))


def detect(image: Image.Image) -> Detection:
    """Read the bits in `image` and return how far they agree with the watermark, as a `Detection`.

    Raises `InputError` for a picture of fewer than 256 x 256 pixels in all, and `MissingPackageError`.
    """
    if not can_mark(image.size):
        raise InputError("image", f"{image.width} x {image.height} pixels can't hold a mark; 65536 are needed")
    bgr = np.ascontiguousarray(np.asarray(image.convert("RGB"))[..., ::-1])
    found = package().WatermarkDecoder("bits", len(BITS)).decode(bgr, "dwtDctSvd")
    n = len(BITS)
    agree = sum(bool(bit) == bool(wanted) for bit, wanted in zip(found, BITS, strict=True))
    return Detection(agree / n, sum(math.comb(n, k) for k in range(agree, n + 1)) / 2**n)


@cache
def package() -> ModuleType:
    """Import the package invisible-watermark and return its module. The first call takes seconds because of OpenCV.

    Raises `MissingPackageError` if it can't be imported.
    """
    try:
        import imwatermark
        import imwatermark.dwtDctSvd
    except ImportError as error:
        raise MissingPackageError(
            f"the watermark needs invisible-watermark and OpenCV, which can't be imported ({error}); "
            "run script/bootstrap, or install the system's libgl1 and libglib2.0-0"
        ) from error
    return imwatermark
