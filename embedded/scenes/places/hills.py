"""Woods and mountains: forest, snow, mountains, an avenue of cherry trees."""

import cv2
import numpy as np

from embedded.scenes.canvas import Canvas, blend, ellipse, polygon, solid, vary
from embedded.scenes.chance import Rng, between, pick
from embedded.scenes.places.backdrop import Backdrop
from embedded.scenes.places.parts import clouds, grass, hill, sky
from embedded.scenes.places.trees import conifer, round_tree, trunk


def forest(canvas: Canvas, rng: Rng) -> Backdrop:
    """森: three rows of trees in the mist."""
    mist = vary(rng, pick(rng, ((206, 232, 196), (190, 226, 214), (226, 236, 188))))
    near = vary(rng, pick(rng, ((40, 106, 62), (52, 120, 56), (34, 96, 76))))
    image = solid(canvas.gradient(mist + 12, mist, mist * 0.92))
    conifers = rng.random() < 0.5
    for depth in (0.25, 0.55, 0.9):
        colour = mist + (near - mist) * depth
        foot = 150 + 46 * depth
        for _ in range(int(canvas.x(int(13 - 5 * depth)))):
            x, height = between(rng, -10, canvas.width + 10), between(rng, 90, 130) * (0.7 + 0.75 * depth)
            if depth > 0.8 and abs(x - canvas.width / 2) < 60:
                continue
            if conifers:
                conifer(image, x, foot, height, colour * between(rng, 0.92, 1.06))
            else:
                round_tree(image, rng, x, foot, height, colour * between(rng, 0.92, 1.06))
        image, outline = hill(canvas, image, rng, foot - 4, 4, colour * 1.06, colour * 0.9)
        image = solid(image)
    flowers = ((255, 250, 220),) if rng.random() < 0.4 else ()
    image = grass(canvas, image, rng, outline, 120, (near * 1.3, near * 0.8, near * 1.6), flowers)
    if rng.random() < 0.5:
        slant = canvas.columns + 0.6 * canvas.rows
        rays = np.clip(np.sin(slant / between(rng, 16, 26) + between(rng, 0, 6)), 0, 1)
        image = blend(image, (255, 252, 214), 0.3 * (rays * np.clip(1 - canvas.rows / 200, 0, 1)))
    return Backdrop(solid(image), (212, 246))


def snowfield(canvas: Canvas, rng: Rng) -> Backdrop:
    """雪景色: snow, with firs and sometimes with flakes."""
    top = pick(rng, ((150, 186, 222), (178, 204, 228), (120, 160, 208)))
    image = canvas.gradient(vary(rng, top), vary(rng, (232, 240, 248), 6), end=170)
    image, _ = hill(canvas, image, rng, between(rng, 120, 140), 22, vary(rng, (196, 212, 232), 6), (222, 232, 244))
    image = solid(image)
    for _ in range(int(canvas.x(between(rng, 5, 12)))):
        x = between(rng, 0, canvas.width)
        conifer(image, x, between(rng, 160, 174), between(rng, 34, 76), vary(rng, (62, 110, 98)), snow=True)
    image, _ = hill(canvas, image, rng, between(rng, 164, 176), 7, (240, 246, 252), (226, 236, 248))
    image, _ = hill(canvas, image, rng, between(rng, 192, 204), 6, (252, 254, 255), vary(rng, (222, 232, 246), 5))
    image = solid(image)
    if rng.random() < 0.6:
        for _ in range(int(canvas.x(70))):
            r = between(rng, 0.7, 2.2)
            ellipse(image, between(rng, 0, canvas.width), between(rng, 0, canvas.height), r, r, (255, 255, 255))
    return Backdrop(image, (210, 244), shadow=0.22)


def mountains(canvas: Canvas, rng: Rng) -> Backdrop:
    """山: two ranges with snow on top."""
    image = clouds(canvas, sky(canvas, rng), rng, 1 + int(rng.random() * 3), 20, 70)
    for depth in range(2):
        base = 108 + 32 * depth
        rock = vary(rng, ((146, 164, 196), (98, 118, 150))[depth], 10)
        outline = canvas.ridge(rng, base, between(rng, 36, 50), 0.62)
        body = canvas.below(outline)
        side = np.gradient(outline)
        light = np.where(cv2.GaussianBlur(side[None].astype(np.float32), (0, 0), 3) < 0, 1.1, 0.86)
        image = blend(image, rock * np.broadcast_to(light, canvas.shape)[..., None], body)
        snow_line = outline.min() + 26 + 7 * np.sin(canvas.columns[0] / 5) + 4 * np.sin(canvas.columns[0] / 2.3)
        snow = np.float32([246, 250, 255]) * np.broadcast_to(0.9 + light / 11, canvas.shape)[..., None]
        image = blend(image, snow, body * (1 - canvas.below(snow_line)))
    green = pick(rng, ((92, 158, 84), (120, 176, 84), (160, 160, 90)))
    image, _ = hill(canvas, image, rng, 158, 12, vary(rng, green) * 0.9, vary(rng, green))
    image = solid(image)
    for _ in range(int(canvas.x(between(rng, 0, 14)))):
        x, foot = between(rng, 0, canvas.width), between(rng, 172, 186)
        conifer(image, x, foot, between(rng, 18, 34), vary(rng, (50, 110, 74)))
    image, outline = hill(canvas, image, rng, 188, 6, vary(rng, green) * 1.12, vary(rng, green) * 0.8)
    image = grass(canvas, image, rng, outline, 90, (np.float32(green) * 1.25, np.float32(green) * 0.75))
    return Backdrop(image, (210, 244))


def cherry_avenue(canvas: Canvas, rng: Rng) -> Backdrop:
    """桜並木: a path between cherry trees in bloom."""
    image = sky(canvas, rng)
    image, _ = hill(canvas, image, rng, 148, 6, (190, 214, 170), (150, 196, 120))
    lawn = canvas.gradient(vary(rng, (150, 200, 116)), vary(rng, (110, 176, 92)), start=150)
    image = solid(blend(image, lawn, canvas.below(152)))
    path = vary(rng, pick(rng, ((226, 206, 180), (214, 200, 196), (200, 186, 170))), 6)
    centre = between(rng, canvas.x(108), canvas.x(148))
    half = canvas.x(110)
    ends = [(centre - 9, 151), (centre + 9, 151), (centre + half, canvas.height), (centre - half, canvas.height)]
    polygon(image, ends, path)
    pink = vary(rng, pick(rng, ((250, 186, 208), (255, 200, 216), (246, 168, 198))), 6)
    for depth in (0.15, 0.4, 0.7, 1.0):
        foot, spread, size = 152 + 62 * depth, 22 + 92 * depth, 34 + 74 * depth
        for side in (-1, 1):
            x = centre + side * canvas.x(spread) + between(rng, -4, 4)
            bark = vary(rng, (104, 72, 64), 8)
            trunk(image, x, foot, size * 0.06, size * 0.9, bark)
            for shade in (0.9, 0.97, 1.0, 1.04):
                for _ in range(5):
                    r = size * between(rng, 0.16, 0.28)
                    at = x + size * between(rng, -0.5, 0.5), foot - size * between(rng, 0.75, 1.5)
                    ellipse(image, *at, r, r * 0.85, np.minimum(pink * shade, 255))
    for _ in range(int(canvas.x(130))):
        y, r, x = canvas.height * rng.random() ** 0.7, between(rng, 0.8, 2.2), between(rng, 0, canvas.width)
        ellipse(image, x, y, r * 1.3, r * 0.8, pink * between(rng, 0.97, 1.02), between(rng, 0, 180))
    return Backdrop(image, (214, 246))
