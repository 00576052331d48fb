"""Palettes of few colours, and the nearest of them to each colour."""

from functools import cache

import cv2
import numpy as np


def _palette(colours: str) -> list[tuple[int, int, int]]:
    """Colours that are written as hexadecimal numbers."""
    return [tuple(bytes.fromhex(colour)) for colour in colours.split()]


UKIYOE = _palette(
    "162854 264a80 5882a6 9ebac4 f0e4c6 e0c896 cc9c54 9c683e ba3e2e de8268 "
    "ecbaaa 607448 96a06c 3a4a3e 242228 6e566c faf4e4 807c76 e8c448 5c3e32"
)


WASHI = _palette(
    "18161a c82a30 ec603c f6b238 fade82 faf4e6 2c4c8c 4c8cc4 a8d2e2 28684a "
    "74a854 bed48c 704082 f0a4b4 96603c d6b282 78787c c4c4c4 1e264a faced6"
)


def _table(palette: list[tuple[int, int, int]], light: float = 1.0) -> np.ndarray:
    """For each of 32 x 32 x 32 colours, the index of the nearest one of `palette` (in Lab, lightness weighted)."""
    axis = (np.arange(32) * 8 + 4).astype(np.uint8)
    cube = np.stack(np.meshgrid(axis, axis, axis, indexing="ij"), -1).reshape(-1, 1, 3)
    weights = np.float32([light, 1, 1])
    lab = cv2.cvtColor(cube.astype(np.float32) / 255, cv2.COLOR_RGB2LAB)[:, 0] * weights
    inks = cv2.cvtColor(np.float32(palette)[:, None] / 255, cv2.COLOR_RGB2LAB)[:, 0] * weights
    return ((lab[:, None] - inks[None]) ** 2).sum(-1).argmin(-1).astype(np.uint8)


@cache
def palette_tables() -> tuple[np.ndarray, np.ndarray]:
    """The tables of UKIYOE and WASHI, for `nearest`."""
    return _table(UKIYOE, 0.9), _table(WASHI, 0.9)


def nearest(image: np.ndarray, table: np.ndarray) -> np.ndarray:
    """The index of the nearest colour of a palette at each pixel of a picture (uint8)."""
    code = image >> 3
    return table[(code[..., 0].astype(np.int32) << 10) | (code[..., 1].astype(np.int32) << 5) | code[..., 2]]
