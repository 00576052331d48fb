"""Brush strokes."""

from functools import cache

import cv2
import numpy as np

from embedded.scenes.canvas import BANK, Canvas
from embedded.scenes.chance import Rng


@cache
def _strokes(length: int, width: float, turn: float, seed: int = 5) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """A canvas (BANK x BANK) covered with brush strokes: the number of the stroke at each pixel, the centre of each
    stroke, and the height of the paint (mean 0). `turn` is how much their direction varies.
    """
    rng = np.random.default_rng(seed)
    side = BANK
    step = max(2.0, width * 0.75)
    grid = np.stack(np.meshgrid(np.arange(0, side, step), np.arange(0, side, step)), -1).reshape(-1, 2)
    centres = grid + rng.normal(0, step * 0.5, grid.shape)
    centres = centres[rng.permutation(len(centres))].astype(np.float32)
    coarse = cv2.resize(rng.normal(size=(7, 7)).astype(np.float32), (side, side), interpolation=cv2.INTER_CUBIC)
    at = centres.clip(0, side - 1).astype(int)
    angles = 0.7 + turn * coarse[at[:, 1], at[:, 0]] + rng.normal(0, 0.16, len(centres)).astype(np.float32)
    ids = np.zeros((side, side), np.int32)
    half = 0.5 * length * np.stack([np.cos(angles), np.sin(angles)], -1) * rng.uniform(0.6, 1.1, (len(centres), 1))
    for i, (a, b) in enumerate(zip(centres - half, centres + half, strict=True)):
        cv2.line(ids, tuple(map(int, a)), tuple(map(int, b)), i, max(1, round(width)))
    ys, xs = np.mgrid[:side, :side].astype(np.float32)
    across = -(xs - centres[ids, 0]) * np.sin(angles[ids]) + (ys - centres[ids, 1]) * np.cos(angles[ids])
    height = (
        1
        - (across / (width / 2 + 0.5)) ** 2
        + 0.35 * np.sin(across * 2.6 + ids)
        + rng.normal(0, 0.4, len(centres))[ids]
    )
    height = height.clip(-1.5, 1.8).astype(np.float32)
    return ids, at.astype(np.int32), height - height.mean()


def painted(
    canvas: Canvas, image: np.ndarray, rng: Rng, length: int, width: float, turn: float
) -> tuple[np.ndarray, np.ndarray]:
    """The picture painted in strokes, each of one colour, and the height of the paint. A stroke ends where the picture
    has quite another colour, so shapes stay whole.
    """
    ids, centres, height = _strokes(length, width, turn)
    y, x = canvas.window(rng, BANK)
    at = np.clip(centres - (x.start, y.start), 0, (canvas.width - 1, canvas.height - 1))
    paint = image[at[:, 1], at[:, 0]][ids[y, x]]
    other = cv2.absdiff(paint, image).max(-1) > 44
    paint[other] = image[other]
    return paint, height[y, x]
