"""What places and styles paint on and with: noise, gradients, outlines of hills, soft shapes.

Pictures are 0..255, height x width x 3: float32 while they are blended, uint8 (see `solid`) once shapes are drawn, as
OpenCV smooths shapes on bytes alone.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from functools import cache, cached_property

import cv2
import numpy as np

from embedded.scenes.chance import Rng

SIZE = 256  # pixels of a side of the usual picture; positions in places are given for a canvas of this size
BANK = 512  # pixels of a side of the noise
Colour = Sequence[float]


@cache
def _noise_bank() -> np.ndarray:
    """Smooth noise at five scales, 5 x BANK x BANK with mean 0 and deviation 1, the same in every run."""
    rng = np.random.default_rng(11)
    bank = []
    for cell in (2, 4, 10, 28, 80):
        coarse = rng.normal(size=(BANK // cell + 3, BANK // cell + 3)).astype(np.float32)
        big = cv2.resize(coarse, None, fx=cell, fy=cell, interpolation=cv2.INTER_CUBIC)[:BANK, :BANK]
        bank.append((big - big.mean()) / big.std())
    return np.stack(bank)


@dataclass(frozen=True)
class Canvas:
    """A picture's width and height in pixels, and the fields of numbers that fit it (height x width)."""

    width: int = SIZE
    height: int = SIZE

    @classmethod
    def of(cls, image: np.ndarray) -> "Canvas":
        """The canvas of a picture."""
        return cls(image.shape[1], image.shape[0])

    @property
    def shape(self) -> tuple[int, int]:
        """Height and width, as numpy has them."""
        return self.height, self.width

    @cached_property
    def rows(self) -> np.ndarray:
        """The number of each row: height x 1."""
        return np.arange(self.height, dtype=np.float32)[:, None]

    @cached_property
    def columns(self) -> np.ndarray:
        """The number of each column: 1 x width."""
        return np.arange(self.width, dtype=np.float32)[None, :]

    def x(self, column: float) -> float:
        """A column or a number of things that is given for a canvas SIZE wide."""
        return column * (self.width / SIZE)

    def y(self, row: float) -> float:
        """A row that is given for a canvas SIZE high."""
        return row * (self.height / SIZE)

    def window(self, rng: Rng, side: int) -> tuple[slice, slice]:
        """A random window of this size in a field of side x side."""
        y, x = int(rng.random() * (side - self.height)), int(rng.random() * (side - self.width))
        return slice(y, y + self.height), slice(x, x + self.width)

    def noise(self, rng: Rng, scale: int) -> np.ndarray:
        """Smooth noise, mean 0, deviation 1; scale 0 (finest, 2 pixels) to 4 (80 pixels)."""
        y, x = self.window(rng, BANK)
        field = _noise_bank()[scale, y, x]
        return field[::-1] if rng.random() < 0.5 else field

    def clouded(self, rng: Rng) -> np.ndarray:
        """Noise of several scales, like mist or marble: mean 0, deviation about 1."""
        noise = self.noise
        return 0.75 * noise(rng, 4) + 0.5 * noise(rng, 3) + 0.3 * noise(rng, 2) + 0.15 * noise(rng, 1)

    def plain(self, colour: Colour) -> np.ndarray:
        """A picture of one colour."""
        return np.full((*self.shape, 3), colour, np.float32)

    def gradient(self, *colours: Colour, start: float = 0, end: float | None = None) -> np.ndarray:
        """Colours from top to bottom, evenly spaced between the rows `start` and `end`, by default the last."""
        stops = np.linspace(start, self.height if end is None else end, len(colours))
        column = np.stack([np.interp(self.rows[:, 0], stops, [c[i] for c in colours]) for i in range(3)], -1)
        return np.repeat(column[:, None].astype(np.float32), self.width, 1)

    def ridge(self, rng: Rng, base: float, height: float, rough: float = 0.5) -> np.ndarray:
        """The outline of hills: a row for each column, about `base`, up to `height` above and below."""
        line = np.zeros(self.width, np.float32)
        for octave in range(5):
            points = rng.normal(size=(1, 3 + 2**octave)).astype(np.float32)
            line += cv2.resize(points, (self.width, 1), interpolation=cv2.INTER_CUBIC)[0] * (rough**octave)
        return base - height * line / max(1e-3, np.abs(line).max())

    def below(self, line: np.ndarray | float) -> np.ndarray:
        """1 below the outline, 0 above, soft across a pixel."""
        return np.broadcast_to(np.clip(self.rows - line + 0.5, 0, 1), self.shape)

    def disc(self, x: float, y: float, radius: float) -> np.ndarray:
        """1 inside the circle, 0 outside, soft across a pixel."""
        return np.clip(radius - np.hypot(self.columns - x, self.rows - y) + 0.5, 0, 1)

    def glow(self, x: float, y: float, radius: float) -> np.ndarray:
        """1 in the middle, fading as a Gaussian of the standard deviation `radius`."""
        return np.exp(-((self.columns - x) ** 2 + (self.rows - y) ** 2) / (2 * radius**2))


def vary(rng: Rng, colour: Colour, by: float = 12) -> np.ndarray:
    """The colour, a little lighter or darker and of a little other hue."""
    moved = np.float32(colour) + by * (rng.random(3) * 1.2 - 0.6) + by * (rng.random() - 0.5)
    return np.clip(moved, 0, 255).astype(np.float32)


def blend(under: np.ndarray, over: np.ndarray | Colour, mask: np.ndarray) -> np.ndarray:
    """`over` where `mask` (height x width in [0, 1]) is 1, `under` where it is 0; float32."""
    return under + (np.asarray(over, np.float32) - under) * mask[..., None]


def solid(image: np.ndarray) -> np.ndarray:
    """The picture in bytes."""
    return np.ascontiguousarray(np.clip(image + 0.5, 0, 255).astype(np.uint8)) if image.dtype != np.uint8 else image


def blur(array: np.ndarray, radius: float) -> np.ndarray:
    """The array smoothed by a Gaussian of the standard deviation `radius`, in pixels."""
    return cv2.GaussianBlur(array, (0, 0), radius)


def polygon(image: np.ndarray, points: Sequence[Sequence[float]], colour: Colour) -> None:
    """Fill a polygon in place; corners may lie between pixels."""
    cv2.fillPoly(image, [np.round(np.float32(points) * 16).astype(np.int32)], _scalar(colour), cv2.LINE_AA, 4)


def rectangle(image: np.ndarray, x0: float, y0: float, x1: float, y1: float, colour: Colour) -> None:
    """Fill a rectangle in place, up to the column x1 and the row y1."""
    cv2.rectangle(image, (round(x0), round(y0)), (round(x1) - 1, round(y1) - 1), _scalar(colour), -1)


def line(image: np.ndarray, x0: float, y0: float, x1: float, y1: float, colour: Colour, width: int = 1) -> None:
    """Draw a line in place."""
    ends = [(round(x * 16), round(y * 16)) for x, y in ((x0, y0), (x1, y1))]
    cv2.line(image, *ends, _scalar(colour), width, cv2.LINE_AA, 4)


def ellipse(image: np.ndarray, x: float, y: float, rx: float, ry: float, colour: Colour, angle: float = 0) -> None:
    """Fill an ellipse in place, turned by `angle` in degrees."""
    centre, axes = (round(x * 16), round(y * 16)), (max(1, round(rx * 16)), max(1, round(ry * 16)))
    cv2.ellipse(image, centre, axes, angle, 0, 360, _scalar(colour), -1, cv2.LINE_AA, 4)


def _scalar(colour: Colour | float) -> tuple[float, ...] | float:
    return tuple(float(c) for c in colour) if np.ndim(colour) else float(colour)
