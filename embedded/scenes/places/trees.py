"""Trees: firs, round ones, palms."""

import itertools

import numpy as np

from embedded.scenes.canvas import Canvas, ellipse, line, polygon, rectangle, vary
from embedded.scenes.chance import Rng, between


def conifer(image: np.ndarray, x: float, foot: float, height: float, colour: np.ndarray, snow: bool = False) -> None:
    """Draw a fir in place; its foot is at (x, foot)."""
    half = height * 0.24
    rectangle(image, x - height * 0.03, foot - height * 0.14, x + height * 0.03 + 1, foot, colour * 0.55)
    for i in range(3):
        base, tip = foot - height * (0.1 + 0.25 * i), foot - height * (0.5 + 0.25 * i)
        wide = half * (1 - 0.24 * i)
        polygon(image, [(x - wide, base), (x + wide, base), (x, tip)], colour * (0.86 + 0.09 * i))
        if snow:
            drop = (base - tip) * 0.45
            w = wide * 0.45
            fringe = [(x - w, tip + drop), (x - w / 3, tip + drop * 0.8), (x + w / 3, tip + drop * 1.05)]
            polygon(image, [*fringe, (x + w, tip + drop), (x, tip)], (246, 250, 255))


def trunk(image: np.ndarray, x: float, foot: float, half: float, tall: float, bark: np.ndarray) -> None:
    """Draw a trunk in place, `half` to each side at its foot and half of that at its top."""
    top = foot - tall
    polygon(image, [(x - half, foot), (x + half, foot), (x + half / 2, top), (x - half / 2, top)], bark)


def round_tree(image: np.ndarray, rng: Rng, x: float, foot: float, height: float, leaf: np.ndarray) -> None:
    """Draw a tree with a round crown in place; its foot is at (x, foot)."""
    bark = vary(rng, (112, 80, 54), 8)
    trunk(image, x, foot, height * 0.06, height * 0.5, bark)
    for shade, shift in ((0.82, 0.04), (1.0, 0), (1.14, -0.06)):
        for _ in range(4):
            r = height * between(rng, 0.14, 0.2) * (1 if shade < 1.1 else 0.6)
            at = x + height * between(rng, -0.2, 0.2), foot - height * (between(rng, 0.55, 0.82) - shift)
            ellipse(image, *at, r, r, leaf * shade)


def palm(canvas: Canvas, image: np.ndarray, rng: Rng, x: float, foot: float) -> None:
    """Draw a palm that leans to the middle."""
    lean, height = (canvas.x(128) - x) / canvas.x(128) * between(rng, 10, 26), between(rng, 90, 120)
    bark, leaf = vary(rng, (150, 108, 66)), vary(rng, (46, 148, 72))
    points = [(x + lean * t * t, foot - height * t) for t in np.linspace(0, 1, 9)]
    for i, (a, b) in enumerate(itertools.pairwise(points)):
        line(image, *a, *b, bark * (0.9 + 0.12 * (i % 2)), 6 - i // 3)
    tip = points[-1]
    for angle in np.linspace(-2.9, -0.2, 6) + rng.normal(0, 0.08, 6):
        dx, dy = np.cos(angle), np.sin(angle)
        mid = (tip[0] + 20 * dx, tip[1] + 16 * dy - 4)
        end = (tip[0] + 40 * dx, tip[1] + 22 * dy + 14)
        polygon(image, [tip, (mid[0], mid[1] - 5), end, (mid[0], mid[1] + 5)], leaf * between(rng, 0.85, 1.15))
