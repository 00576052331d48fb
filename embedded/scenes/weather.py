"""Rain, snow and fog: their light, and what falls."""

import numpy as np

from embedded.scenes.canvas import Canvas, blend, blur, ellipse, line, solid, vary
from embedded.scenes.chance import Rng, between
from embedded.scenes.styles.tools import GREY


def air(image: np.ndarray, weather: str, rng: Rng) -> np.ndarray:
    """The picture in the light of the weather."""
    canvas = Canvas.of(image)
    if weather == "fog":
        thick = np.clip(
            0.56 + 0.14 * canvas.clouded(rng) + 0.12 * np.cos((canvas.rows - canvas.y(120)) / canvas.y(60)), 0.3, 0.82
        ).astype(np.float32)
        return solid(blend(image, vary(rng, (222, 226, 230), 8), thick * between(rng, 0.85, 1.0)))
    grey = (image.astype(np.float32) @ GREY)[..., None]
    if weather == "rain":
        dull = 0.55 * image + 0.45 * grey * np.float32([0.9, 0.95, 1.06])
        return solid(dull * 0.76 + np.float32([4, 8, 16]))
    return solid(
        0.8 * image + 0.2 * grey * np.float32([0.96, 0.99, 1.05]) + canvas.gradient((10, 10, 14), (14, 16, 20))
    )


def fall(image: np.ndarray, weather: str, style: str, rng: Rng) -> np.ndarray:
    """Rain or snow over the picture, which is in `style`."""
    if weather == "fog":
        return image
    canvas = Canvas.of(image)
    share = canvas.x(1) * canvas.y(1)  # of the usual picture's area
    layer = np.zeros(canvas.shape, np.uint8)
    if weather == "rain":
        slant = between(rng, -0.35, 0.35)
        for _ in range(int(share * between(rng, 90, 150))):
            x, y, reach = between(rng, -40, canvas.width + 40), between(rng, -30, canvas.height), between(rng, 14, 34)
            line(layer, x, y, x + slant * reach, y + reach, between(rng, 110, 215), 1 if rng.random() < 0.75 else 2)
        dark = style in ("ukiyoe", "pencil")
        tone = (40, 46, 66) if dark else (226, 236, 248)
        return solid(blend(image, tone, layer.astype(np.float32) / 255 * 0.8))
    for _ in range(int(share * between(rng, 90, 170))):
        radius = between(rng, 1.0, 2.0) if rng.random() < 0.75 else between(rng, 2.2, 4.4)
        ellipse(
            layer, between(rng, 0, canvas.width), between(rng, 0, canvas.height), radius, radius, between(rng, 190, 255)
        )
    return solid(blend(image, (253, 254, 255), blur(layer, 0.7).astype(np.float32) / 255))
