"""The invisible mark that tells a picture was made by a machine: `embed` it, `detect` it.

1024 bits are spread over the picture, and repeated where it is large, with the dwtDctSvd method of the
invisible-watermark package: an 8 x 8 pixel block carries one bit, in the blue-yellow channel U, where the eye sees
least. Any copy of that package reads them back: `WatermarkDecoder("bits", 1024).decode(bgr, "dwtDctSvd")`. The mark
survives re-encoding and scaling to and fro, not cropping or another size.

A picture counts as marked when so many bits agree that an unmarked one would do so less than once in a million times:
six in ten are enough, where a message would need all. So as many bits as a picture of 256 x 256 pixels has blocks are
better than fewer bits more often: of 64, each repeated 16 times, the worst of 65 flat drawings kept 40 after WebP 80,
which happens by chance once in 30 times; of 1024 it kept 671, which happens once in 10^23. Embedding is done here,
because the package's own spoils edges (see `embed`), and then finds 0.81 of those drawings as PNG and 0.22 as WebP 80.
`script/bench-watermark` measures what is left after saving and scaling: docs/watermark.md.
"""

from __future__ import annotations

import hashlib
import math
from functools import cache
from types import ModuleType
from typing import NamedTuple

import numpy as np
from PIL import Image

# No pattern that a drawing could have by itself.
BITS = [
    int(bit) for byte in hashlib.shake_256(b"made by Japanese Stable Diffusion").digest(128) for bit in f"{byte:08b}"
]
SCALE = 36  # the package's own strength: a block's bit moves U by 1 or 2 of 256 levels
HEADROOM = 3  # white has no room for more blue: pixels are kept this far below 255 or the mark is clipped away
MIN_PIXELS = 256 * 256  # the package reads no smaller picture
CHANCE = 1e-6


class Detection(NamedTuple):
    """`agreement`: the share of the mark's bits found; `chance`: the odds of at least that in an unmarked picture."""

    agreement: float
    chance: float

    @property
    def marked(self) -> bool:
        """Whether chance is no explanation."""
        return self.chance < CHANCE


def can_mark(size: tuple[int, int]) -> bool:
    """Whether a picture of `size` (width, height) in pixels is large enough to carry the mark."""
    return size[0] * size[1] >= MIN_PIXELS


def embed(image: Image.Image) -> Image.Image:
    """`image` with the mark, as RGB; a picture too small for it (see `can_mark`) comes back as it is.

    Takes about 20 ms for 256 x 256 pixels, 90 ms for 512 x 512. Raises `RuntimeError` if the package can't be imported.
    """
    if not can_mark(image.size):
        return image
    rgb = np.asarray(image.convert("RGB"), dtype=np.float64).clip(max=255 - HEADROOM)
    r, g, b = np.moveaxis(rgb, -1, 0)
    u = 0.492 * (b - (0.299 * r + 0.587 * g + 0.114 * b)) + 128

    # The package's `encode` swaps the horizontal and vertical details of the picture on its way back, which leaves
    # coloured fringes on a drawing's edges. Its bits sit in the low band alone, half the sum of 2 x 2 pixels (Haar):
    # so only that band's change is taken from it and spread over those pixels.
    h, w = (side // 4 * 2 for side in u.shape)
    low = u[: 2 * h, : 2 * w].reshape(h, 2, w, 2).sum(axis=(1, 3)) / 2
    marked = low.copy()
    package().dwtDctSvd.EmbedDwtDctSvd(BITS, len(BITS)).encode_frame(marked, SCALE)
    change = np.zeros_like(u)
    change[: 2 * h, : 2 * w] = np.kron((marked - low) / 2, np.ones((2, 2)))
    # U alone changes: brightness stays, so green gives back what blue adds.
    rgb += change[..., None] * (0, -0.395, 2.032)
    return Image.fromarray(rgb.round().clip(0, 255).astype(np.uint8))


def detect(image: Image.Image) -> Detection:
    """How much of the mark `image` carries, and the odds of that by chance.

    Raises `ValueError` for a picture under 256 x 256 pixels, `RuntimeError` if the package can't be imported.
    """
    if not can_mark(image.size):
        raise ValueError(
            f"image: {image.width} x {image.height} pixels are too few to carry the mark; 65536 are needed"
        )
    bgr = np.ascontiguousarray(np.asarray(image.convert("RGB"))[..., ::-1])
    found = package().WatermarkDecoder("bits", len(BITS)).decode(bgr, "dwtDctSvd")
    n = len(BITS)
    agree = sum(bool(bit) == bool(wanted) for bit, wanted in zip(found, BITS, strict=True))
    return Detection(agree / n, sum(math.comb(n, k) for k in range(agree, n + 1)) / 2**n)


@cache
def package() -> ModuleType:
    """The invisible-watermark package, imported on the first call: it takes OpenCV and seconds with it.

    Raises `RuntimeError` if it can't be imported.
    """
    try:
        import imwatermark
        import imwatermark.dwtDctSvd
    except ImportError as error:
        raise RuntimeError(
            f"the watermark needs invisible-watermark and OpenCV, which can't be imported ({error}); "
            "run script/bootstrap, or install the system's libgl1 and libglib2.0-0"
        ) from error
    return imwatermark
