"""Skies: by day, at night, at sunset, and space."""

import cv2
import numpy as np

from embedded.scenes.canvas import Canvas, blend, line, solid, vary
from embedded.scenes.chance import Rng, between, pick
from embedded.scenes.places.backdrop import Backdrop
from embedded.scenes.places.parts import clouds, grass, hill, moon, sky, stars, sun


def blue_sky(canvas: Canvas, rng: Rng) -> Backdrop:
    """青空: clouds, often over a strip of grass."""
    image = sky(canvas, rng)
    if rng.random() < 0.4:
        image = sun(canvas, image, rng)
    image = clouds(canvas, image, rng, 2 + int(rng.random() * 4), 30, 190)
    if rng.random() < 0.4:
        return Backdrop(solid(image))
    base = between(rng, 212, 226)
    image, outline = hill(canvas, image, rng, base, 6, vary(rng, (126, 200, 92)), vary(rng, (74, 160, 66)))
    image = grass(canvas, image, rng, outline, 60, ((90, 176, 74), (150, 214, 110)))
    return Backdrop(image, (228, 246))


def night_sky(canvas: Canvas, rng: Rng) -> Backdrop:
    """夜空: stars, mostly a moon, often over dark hills."""
    image = canvas.gradient(vary(rng, (10, 14, 48), 8), vary(rng, (26, 38, 98), 10), vary(rng, (70, 84, 150), 14))
    if rng.random() < 0.3:
        away = (canvas.columns - canvas.width / 2) * 0.7 + (canvas.rows - between(rng, 60, 150))
        milky = np.exp(-(away**2) / (2 * 34**2)) * np.clip(0.6 + 0.5 * canvas.clouded(rng), 0, 2)
        image = image + 46 * milky[..., None] * np.float32([0.9, 0.8, 1.1])
    image = stars(canvas, image, rng, int(between(rng, 60, 160)))
    if rng.random() < 0.7:
        at = between(rng, canvas.x(35), canvas.width - canvas.x(35)), between(rng, 30, 75)
        image = moon(canvas, image, rng, *at, between(rng, 15, 26), rng.random() < 0.55)
    if rng.random() < 0.35:
        return Backdrop(solid(image))
    dark = vary(rng, (14, 22, 44), 6)
    image, _ = hill(canvas, image, rng, between(rng, 200, 214), 10, dark + 14, dark)
    image, _ = hill(canvas, image, rng, between(rng, 218, 228), 6, dark + 4, dark * 0.6)
    return Backdrop(solid(image), (228, 246), shadow=0.4)


def sunset(canvas: Canvas, rng: Rng) -> Backdrop:
    """夕焼け: over the sea or over hills."""
    horizon = between(rng, 140, 175)
    high = [vary(rng, tone) for tone in ((84, 62, 142), (222, 96, 110), (252, 152, 76))]
    image = canvas.gradient(*high, vary(rng, (255, 214, 120), 8), end=horizon)
    x, radius = between(rng, canvas.x(60), canvas.width - canvas.x(60)), between(rng, 20, 32)
    y = horizon - between(rng, 0, 30)
    image = blend(image, (255, 230, 150), 0.75 * canvas.glow(x, y, 46))
    image = blend(image, (255, 240, 190), canvas.disc(x, y, radius))
    wisps = cv2.resize(np.ascontiguousarray(canvas.noise(rng, 3)[:, :64]), (canvas.width, canvas.height // 2))
    mask = np.zeros(canvas.shape, np.float32)
    upper = canvas.rows[: canvas.height // 2]
    mask[: len(upper)] = np.clip(wisps - 0.3, 0, 1) * np.clip(1.2 - np.abs(upper - 70) / 80, 0, 1)
    image = blend(image, vary(rng, (255, 170, 150)), 0.55 * mask)
    if rng.random() < 0.5:  # over the sea
        sea = canvas.gradient(vary(rng, (240, 150, 96)), vary(rng, (110, 66, 118)), start=horizon)
        image = blend(image, sea, canvas.below(horizon))
        image = solid(image)
        for _ in range(int(canvas.x(70))):
            row = between(rng, horizon + 2, canvas.height)
            depth = (row - horizon) / (canvas.height - horizon)
            below_sun = rng.random() < 0.6
            reach = 2 * radius + 60 * depth
            near = x + (rng.random() - 0.5) * reach if below_sun else between(rng, 0, canvas.width)
            half = 3 + 14 * depth * rng.random()
            line(image, near - half, row, near + half, row, vary(rng, (255, 206, 140), 20), 1 + int(depth * 2))
        return Backdrop(image, (226, 244), shadow=0.25)
    far = vary(rng, (122, 62, 92))
    image, _ = hill(canvas, image, rng, horizon, 12, far, far * 0.8)
    image, outline = hill(canvas, image, rng, horizon + 36, 9, far * 0.62, far * 0.36)
    image = grass(canvas, image, rng, outline, 50, (far * 0.5, far * 0.8))
    return Backdrop(image, (222, 244), shadow=0.4)


def space(canvas: Canvas, rng: Rng) -> Backdrop:
    """宇宙: stars, clouds of gas and a planet or two."""
    image = canvas.gradient(vary(rng, (8, 8, 26), 6), vary(rng, (18, 10, 40), 8))
    for _ in range(2):
        tint = np.float32(pick(rng, ((150, 60, 190), (40, 90, 210), (220, 70, 130), (40, 160, 170), (110, 70, 220))))
        cloud = np.clip(canvas.clouded(rng) - 0.1, 0, 2) ** 1.5
        light = canvas.glow(between(rng, canvas.x(20), canvas.x(236)), between(rng, 20, 236), 85)
        image = image + tint * (0.3 * cloud * light)[..., None]
    image = stars(canvas, image, rng, int(between(rng, 90, 200)))
    for _ in range(1 + int(rng.random() * 2)):
        x = canvas.x(pick(rng, (between(rng, 14, 60), between(rng, 196, 242))))
        y, radius = between(rng, 20, 236), between(rng, 12, 34)
        tints = (226, 150, 96), (110, 170, 220), (200, 120, 170), (150, 200, 140), (220, 200, 150)
        tint = vary(rng, pick(rng, tints))
        bands = 0.1 * np.sin((canvas.rows - y + 4 * canvas.noise(rng, 3)) / between(rng, 2, 5))
        from_light = np.hypot(canvas.columns - x + radius * 0.4, canvas.rows - y + radius * 0.4)
        lit = np.clip(1.05 - from_light / (2.1 * radius), 0.12, 1)
        image = blend(image, tint * ((1 + bands) * lit)[..., None] * 1.2, canvas.disc(x, y, radius))
        if rng.random() < 0.4:
            image = solid(image)
            ring = (round(x), round(y)), (round(radius * 1.7), round(radius * 0.4))
            cv2.ellipse(image, *ring, -18, -20, 200, tuple(float(c) for c in tint * 0.95), 2, cv2.LINE_AA)
    return Backdrop(solid(image))
