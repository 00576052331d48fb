"""Plain shapes in place of the icon sets: assets to render scenes with that need no download."""

import cv2
import numpy as np

from embedded.scenes import Assets, Concept
from embedded.scenes.sprites import Drawing

SIDE = 64  # pixels of a sprite
NAMES = {
    "circle": ("丸", "まる", "円"),
    "bars": ("縞", "しま", "シマ"),
    "triangle": ("三角", "さんかく", "円"),
    "ring": ("輪", "わ", "リング"),
    "cross": ("十字", "じゅうじ"),
    "square": ("四角", "しかく"),
}


def _sprite(name: str) -> np.ndarray:
    """A shape as premultiplied RGBA, uint8 (SIDE, SIDE, 4)."""
    sprite = np.zeros((SIDE, SIDE, 4), np.uint8)
    if name == "circle":
        cv2.circle(sprite, (32, 32), 30, (210, 50, 50, 255), -1)
    elif name == "bars":
        for y in (0, 24, 48):
            sprite[y : y + 14] = (40, 160, 100, 255)
    elif name == "triangle":
        cv2.fillPoly(sprite, [np.array([[32, 2], [62, 62], [2, 62]])], (50, 90, 200, 255))
    elif name == "ring":
        cv2.circle(sprite, (32, 32), 26, (170, 110, 0, 255), 10)
    elif name == "cross":
        sprite[24:40] = sprite[:, 24:40] = (90, 90, 90, 255)
    else:
        sprite[:] = (240, 200, 40, 255)
    return sprite


CONCEPTS = {name: Concept(name, ("x",), names, (name,), "個", "object") for name, names in NAMES.items()}


def make_assets() -> Assets:
    """Assets with one drawing for each of CONCEPTS. Circle and triangle share one Japanese name, 円."""
    pixels = np.concatenate([_sprite(name).ravel() for name in CONCEPTS])
    places = {name: (i * SIDE * SIDE * 4, SIDE, SIDE, 0.5) for i, name in enumerate(CONCEPTS)}
    return Assets(CONCEPTS, {name: [Drawing(name, False)] for name in CONCEPTS}, pixels, places)
