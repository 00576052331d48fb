"""The sea: on it, beside it, in it."""

import itertools

import cv2
import numpy as np

from embedded.scenes.canvas import Canvas, blend, ellipse, line, solid, vary
from embedded.scenes.chance import Rng, between, pick
from embedded.scenes.places.backdrop import Backdrop
from embedded.scenes.places.parts import clouds, hill, sky, sun, water
from embedded.scenes.places.trees import palm


def sea(canvas: Canvas, rng: Rng) -> Backdrop:
    """海: the things float, with waves before them."""
    horizon = between(rng, 96, 140)
    image = clouds(canvas, sky(canvas, rng), rng, 2 + int(rng.random() * 3), 20, horizon - 6)
    if rng.random() < 0.35:
        image = sun(canvas, image, rng)
    deep = pick(rng, ((16, 92, 170), (12, 112, 168), (22, 78, 150)))
    surface = water(canvas, rng, horizon, vary(rng, (96, 186, 220)), vary(rng, deep))
    image = blend(image, surface, canvas.below(horizon))
    row = between(rng, 206, 226)
    waves = np.sin(canvas.columns[0] / between(rng, 7, 11) + between(rng, 0, 6))
    swell = row - 8 + 3.5 * waves + canvas.ridge(rng, 0, 2)
    mask = canvas.below(swell) * 0.9
    foam = canvas.below(swell) * (1 - canvas.below(swell + 3.5)) * 0.85
    front = blend(surface.astype(np.float32), (236, 248, 255), foam)
    image = blend(image, front, foam)
    return Backdrop(solid(image), (row, row + 4), (front, mask), 0.0)


def beach(canvas: Canvas, rng: Rng) -> Backdrop:
    """砂浜: sand, surf and the sea behind."""
    horizon = between(rng, 84, 118)
    image = clouds(canvas, sky(canvas, rng), rng, 1 + int(rng.random() * 3), 20, horizon - 8)
    surface = water(canvas, rng, horizon, vary(rng, (60, 160, 214)), vary(rng, (70, 206, 210)), count=50)
    image = blend(image, surface, canvas.below(horizon))
    shore = canvas.ridge(rng, horizon + between(rng, 46, 66), 7, 0.4)
    image = blend(image, (248, 252, 252), canvas.below(shore - 7) * 0.8)
    sand = canvas.gradient(vary(rng, (222, 190, 138)), vary(rng, (248, 222, 166)), start=horizon + 40)
    sand = sand + (7 * canvas.noise(rng, 0) + 5 * canvas.noise(rng, 3))[..., None]
    image = blend(image, np.float32((196, 164, 118)), canvas.below(shore))
    image = solid(blend(image, sand, canvas.below(shore + 5)))
    for _ in range(int(canvas.x(rng.random() * 6))):
        x, y = between(rng, 0, canvas.width), between(rng, 205, 250)
        ellipse(image, x, y, between(rng, 2, 4), 2, vary(rng, (250, 240, 226)), between(rng, 0, 180))
    if rng.random() < 0.35:
        x = canvas.x(pick(rng, (between(rng, 8, 40), between(rng, 216, 248))))
        palm(canvas, image, rng, x, between(rng, 186, 200))
    return Backdrop(image, (206, 244))


def underwater(canvas: Canvas, rng: Rng) -> Backdrop:
    """海の中: rays of light, weeds, corals and bubbles."""
    image = canvas.gradient(vary(rng, (110, 216, 232)), vary(rng, (36, 140, 200)), vary(rng, (14, 72, 140)))
    slant = canvas.columns + between(rng, -0.4, 0.4) * canvas.rows
    rays = np.clip(np.sin(slant / between(rng, 14, 22)) + 0.6 * np.sin(slant / between(rng, 6, 9)), 0, 1.4)
    image = blend(image, (220, 252, 255), 0.2 * rays * np.clip(1 - canvas.rows / 220, 0, 1))
    bed = vary(rng, (214, 196, 150))
    image, outline = hill(canvas, image, rng, between(rng, 218, 232), 6, bed * 0.82, bed * 0.62)
    image = solid(image)
    for _ in range(int(canvas.x(between(rng, 4, 9)))):  # seaweed and coral
        x = between(rng, 0, canvas.width)
        foot = outline[min(canvas.width - 1, int(x))] + 6
        tone = vary(rng, pick(rng, ((40, 130, 90), (70, 160, 80), (226, 96, 120), (240, 140, 90), (170, 90, 180))))
        if tone[1] > tone[0]:
            tall, phase = between(rng, 30, 72), between(rng, 0, 6)
            points = [(x + 5 * np.sin(t * 6 + phase), foot - tall * t) for t in np.linspace(0, 1, 10)]
            for a, b in itertools.pairwise(points):
                line(image, *a, *b, tone, 4)
        else:
            for angle in (-0.7, -0.25, 0.2, 0.65):
                tall = between(rng, 14, 26)
                line(image, x, foot, x + tall * np.sin(angle), foot - tall * np.cos(angle), tone, 5)
                ellipse(image, x + tall * np.sin(angle), foot - tall * np.cos(angle), 3.5, 3.5, tone)
    for _ in range(int(canvas.x(between(rng, 8, 24)))):
        x, y, r = between(rng, 0, canvas.width), between(rng, 10, 220), between(rng, 1.5, 6)
        cv2.circle(image, (round(x * 16), round(y * 16)), round(r * 16), (226, 248, 255), 1, cv2.LINE_AA, 4)
        ellipse(image, x - r * 0.35, y - r * 0.35, r * 0.25, r * 0.25, (255, 255, 255))
    veil = canvas.gradient((120, 214, 236), (24, 100, 170)), np.full(canvas.shape, 0.14, np.float32)
    return Backdrop(image, None, veil)
