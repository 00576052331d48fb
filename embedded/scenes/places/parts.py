"""What several places have: sky, sun, moon, stars and clouds, hills, grass and water."""

import cv2
import numpy as np

from embedded.scenes.canvas import Canvas, Colour, blend, blur, ellipse, line, solid, vary
from embedded.scenes.chance import Rng, between, pick


def sky(canvas: Canvas, rng: Rng) -> np.ndarray:
    """A blue sky, paler towards the horizon."""
    top = pick(rng, ((64, 148, 236), (84, 166, 240), (48, 128, 222), (110, 184, 246)))
    return canvas.gradient(vary(rng, top), vary(rng, (206, 234, 252), 8), end=between(rng, 150, 260))


def sun(canvas: Canvas, image: np.ndarray, rng: Rng, high: float = 70) -> np.ndarray:
    """The sun, above the row `high`."""
    x, y = between(rng, canvas.x(25), canvas.width - canvas.x(25)), between(rng, 22, high)
    image = blend(image, (255, 246, 190), 0.6 * canvas.glow(x, y, 34))
    return blend(image, (255, 238, 120), canvas.disc(x, y, between(rng, 13, 19)))


def clouds(canvas: Canvas, image: np.ndarray, rng: Rng, count: int, low: float, high: float) -> np.ndarray:
    """Heaped clouds with flat, faintly shaded feet, between the rows `low` and `high`."""
    mask = np.zeros(canvas.shape, np.uint8)
    for _ in range(int(canvas.x(count))):
        x, y, size = between(rng, 0, canvas.width), between(rng, low, high), between(rng, 0.6, 1.5)
        top, foot = max(0, int(y - 34 * size)), min(canvas.height, int(y + 4))
        cloud = mask[top:foot]
        for _ in range(6):
            radius = size * between(rng, 7, 15)
            ellipse(cloud, x + size * between(rng, -26, 26), y - radius * 0.4 - top, radius * 1.15, radius, 255)
        ellipse(cloud, x, y - 3 - top, size * 36, size * 8, 255)
    soft = blur(mask, 1.1).astype(np.float32) / 255
    coarse = blur(cv2.resize(mask, (64, 64), interpolation=cv2.INTER_AREA), 2.2)
    shade = cv2.resize(coarse, canvas.shape[::-1]) / np.float32(255)
    white = np.float32([255, 255, 255])
    tone = white - (1 - np.float32([0.8, 0.88, 1.0])) * 90 * np.clip(shade - 0.45, 0, 1)[..., None]
    return image + (tone - image) * (soft * 0.95)[..., None]


def stars(canvas: Canvas, image: np.ndarray, rng: Rng, count: int, low: float | None = None) -> np.ndarray:
    """Stars above the row `low`, by default everywhere."""
    low = low or canvas.height
    image = solid(image)
    for _ in range(int(canvas.x(count))):
        x, y, light = between(rng, 0, canvas.width), between(rng, 0, low), rng.random() ** 2
        tint = pick(rng, ((255, 255, 255), (255, 240, 210), (210, 225, 255)))
        ellipse(image, x, y, 0.5 + 1.1 * light, 0.5 + 1.1 * light, tint)
        if light > 0.9:
            reach = 1 + 4 * light
            line(image, x - reach, y, x + reach, y, tint)
            line(image, x, y - reach, x, y + reach, tint)
    return image


def moon(canvas: Canvas, image: np.ndarray, rng: Rng, x: float, y: float, radius: float, crescent: bool) -> np.ndarray:
    """A full moon or a crescent at (x, y)."""
    colour = pick(rng, ((255, 246, 205), (255, 235, 150), (245, 245, 250)))
    image = blend(image, colour, 0.45 * canvas.glow(x, y, radius * 2))
    shape = canvas.disc(x, y, radius)
    if crescent:
        side = pick(rng, (-1, 1))
        shape = shape * (1 - canvas.disc(x + side * radius * 0.5, y - radius * 0.15, radius * 0.85))
        return blend(image, colour, shape)
    image = blend(image, colour, shape)
    return blend(image, np.float32(colour) * 0.86, shape * np.clip(canvas.noise(rng, 2) - 0.6, 0, 1))


def hill(
    canvas: Canvas, image: np.ndarray, rng: Rng, base: float, height: float, top: Colour, bottom: Colour
) -> tuple[np.ndarray, np.ndarray]:
    """The picture with a range of hills, about the row `base`, and its outline: a row for each column."""
    outline = canvas.ridge(rng, base, height, 0.3)
    image = blend(image, canvas.gradient(top, bottom, start=base - height), canvas.below(outline))
    return image, outline


def grass(
    canvas: Canvas, image: np.ndarray, rng: Rng, line_: np.ndarray, count: int, colours, flowers=()
) -> np.ndarray:
    """Blades, and small flowers, below the outline `line_`; larger towards the viewer."""
    image = solid(image)
    top = float(line_.min())
    for _ in range(int(canvas.x(count))):
        x, y = between(rng, 0, canvas.width), between(rng, top, canvas.height + 6)
        if y < line_[min(canvas.width - 1, int(x))] + 2:
            continue
        near = (y - top) / (canvas.height - top)
        line(image, x, y, x + between(rng, -2, 2), y - 2 - 7 * near, pick(rng, colours))
        if flowers and rng.random() < 0.25:
            ellipse(image, x, y - 3 - 7 * near, 0.8 + 1.8 * near, 0.8 + 1.6 * near, pick(rng, flowers))
    return image


def water(canvas: Canvas, rng: Rng, horizon: float, top, bottom, glints=(255, 255, 255), count: int = 70) -> np.ndarray:
    """A picture of water below the row `horizon`, with `count` glints."""
    image = solid(canvas.gradient(top, bottom, start=horizon))
    for _ in range(int(canvas.x(count))):
        row = horizon + (canvas.height - horizon) * rng.random() ** 1.3
        depth = (row - horizon) / (canvas.height - horizon)
        x, half = between(rng, 0, canvas.width), 3 + 15 * depth * rng.random()
        tone = np.float32(top) + (np.float32(glints) - top) * (0.25 + 0.5 * rng.random())
        line(image, x - half, row, x + half, row, tone, 1 + int(depth * 1.8))
    return image
