"""Old photographs: black and white, sepia."""

import cv2
import numpy as np

from embedded.scenes.canvas import Canvas, line, solid
from embedded.scenes.chance import Rng
from embedded.scenes.styles.tools import to_grey, vignette


def monochrome(canvas: Canvas, image: np.ndarray, label: np.ndarray, rng: Rng) -> np.ndarray:
    """白黒: a grey photograph with some contrast."""
    grey = ((to_grey(image) - 0.5) * 1.18 + 0.5)[..., None] * vignette(canvas, 0.16)
    return solid(np.repeat(grey * 255 + 2.2 * canvas.noise(rng, 0)[..., None], 3, -1))


def sepia(canvas: Canvas, image: np.ndarray, label: np.ndarray, rng: Rng) -> np.ndarray:
    """セピア: an old brown photograph with a faded border, grain and scratches."""
    grey = (
        np.clip((to_grey(image) - 0.5) * 0.92 + 0.53, 0, 1) + 0.03 * canvas.noise(rng, 0) + 0.015 * canvas.clouded(rng)
    )
    tone = np.stack(
        [np.interp(grey, (0, 0.5, 1), stops) for stops in ((52, 168, 250), (34, 128, 232), (22, 84, 196))], -1
    )
    tone = solid(tone * vignette(canvas, 0.32))
    for _ in range(int(rng.random() * 4)):
        x, y, reach = rng.random() * canvas.width, rng.random() * canvas.height, 10 + 50 * rng.random()
        line(tone, x, y, x + rng.random() * 8 - 4, y + reach, (236, 216, 176))
    if rng.random() < 0.6:
        cv2.rectangle(tone, (0, 0), (canvas.width - 1, canvas.height - 1), (246, 236, 210), 15)
    return tone
