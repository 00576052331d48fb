"""Streets: by day, at night, at a festival."""

import itertools

import numpy as np

from embedded.scenes.canvas import Canvas, blend, blur, ellipse, line, polygon, rectangle, solid, vary
from embedded.scenes.chance import Rng, between, pick
from embedded.scenes.places.backdrop import Backdrop
from embedded.scenes.places.parts import clouds, moon, sky, stars
from embedded.scenes.places.trees import round_tree


def _buildings(
    canvas: Canvas, image: np.ndarray, rng: Rng, foot: float, low: float, high: float, colours, window, lit: float
) -> None:
    x = between(rng, -20, 0)
    while x < canvas.width:
        wide, tall = between(rng, 20, 44), between(rng, low, high)
        colour = vary(rng, pick(rng, colours), 10)
        rectangle(image, x, foot - tall, x + wide, foot, colour)
        rectangle(image, x + wide * 0.82, foot - tall, x + wide, foot, colour * 0.88)
        if rng.random() < 0.3:
            line(image, x + wide / 2, foot - tall - 12, x + wide / 2, foot - tall, colour * 0.8)
        gap = pick(rng, (6, 7, 9))
        for wy in np.arange(foot - tall + 5, foot - 8, gap + 2):
            for wx in np.arange(x + 4, x + wide - 5, gap):
                tone = window if rng.random() < lit else colour * 0.82
                rectangle(image, wx, wy, wx + gap - 3, wy + gap - 3, tone)
        x += wide + pick(rng, (0, 0, 3))


def _road(canvas: Canvas, image: np.ndarray, rng: Rng, top: float, pavement, asphalt, marks) -> None:
    rectangle(image, 0, top, canvas.width, top + 14, vary(rng, pavement, 6))
    rectangle(image, 0, top + 14, canvas.width, canvas.height, vary(rng, asphalt, 8))
    rectangle(image, 0, top + 13, canvas.width, top + 15, np.float32(pavement) * 0.8)
    shift = between(rng, -30, 0)
    for x in np.arange(shift, canvas.width, 44):
        polygon(image, [(x, 238), (x + 24, 238), (x + 21, 244), (x - 4, 244)], marks)


def city(canvas: Canvas, rng: Rng) -> Backdrop:
    """街: houses behind a road."""
    image = solid(clouds(canvas, sky(canvas, rng), rng, 1 + int(rng.random() * 3), 20, 90))
    foot = between(rng, 184, 194)
    haze = ((186, 204, 224), (198, 212, 226))
    _buildings(canvas, image, rng, foot, 70, 130, haze, (214, 228, 240), 0.5)
    fronts = ((226, 190, 160), (196, 204, 214), (232, 222, 204), (170, 188, 206), (214, 160, 140), (244, 236, 220))
    _buildings(canvas, image, rng, foot, 34, 96, fronts, (150, 200, 230), 0.85)
    _road(canvas, image, rng, foot, (206, 204, 200), (128, 130, 136), (246, 246, 240))
    for _ in range(int(canvas.x(rng.random() * 4))):
        round_tree(image, rng, between(rng, 0, canvas.width), foot + 5, between(rng, 34, 46), vary(rng, (92, 170, 80)))
    return Backdrop(image, (212, 246))


def night_city(canvas: Canvas, rng: Rng) -> Backdrop:
    """夜の街: lit windows behind a road."""
    tones = vary(rng, (14, 16, 52), 8), vary(rng, (58, 42, 106), 14), vary(rng, (150, 84, 130), 20)
    image = canvas.gradient(*tones, end=190)
    image = stars(canvas, image, rng, 40, 100)
    if rng.random() < 0.5:
        at = between(rng, canvas.x(30), canvas.x(226)), between(rng, 26, 54)
        image = solid(moon(canvas, image, rng, *at, between(rng, 11, 17), rng.random() < 0.5))
    foot = between(rng, 184, 194)
    _buildings(canvas, image, rng, foot, 80, 140, ((44, 42, 86), (52, 46, 96)), (222, 190, 120), 0.25)
    fronts = (26, 30, 62), (34, 32, 70), (22, 38, 70), (50, 34, 70)
    _buildings(canvas, image, rng, foot, 40, 104, fronts, (255, 224, 120), 0.6)
    _road(canvas, image, rng, foot, (70, 70, 92), (38, 40, 56), (226, 222, 170))
    image = image.astype(np.float32)
    for _ in range(int(canvas.x(between(rng, 3, 7)))):
        tint = pick(rng, ((255, 210, 120), (255, 120, 160), (120, 220, 255), (190, 140, 255)))
        at = between(rng, 0, canvas.width), foot - between(rng, 0, 12)
        image = blend(image, tint, 0.4 * canvas.glow(*at, between(rng, 7, 16)))
    return Backdrop(solid(image), (212, 246), shadow=0.4)


def festival(canvas: Canvas, rng: Rng) -> Backdrop:
    """お祭り: stalls and lanterns at night."""
    tones = vary(rng, (22, 20, 62), 8), vary(rng, (72, 40, 92), 12), vary(rng, (150, 70, 84), 16)
    image = canvas.gradient(*tones, end=200)
    image = stars(canvas, image, rng, 40, 110)
    if rng.random() < 0.45:
        image = _firework(canvas, image, rng, between(rng, canvas.x(50), canvas.x(206)), between(rng, 44, 76))
    foot = between(rng, 184, 196)
    stripes = ((214, 52, 52), (52, 96, 190), (236, 170, 50), (60, 150, 90))
    x = between(rng, -40, -5)
    while x < canvas.width:  # stalls
        wide, tone = between(rng, 66, 84), vary(rng, pick(rng, stripes), 8)
        rectangle(image, x + 3, foot - 64, x + wide - 3, foot, (86, 54, 46))
        rectangle(image, x + 8, foot - 52, x + wide - 8, foot - 24, (255, 216, 140))
        rectangle(image, x + 3, foot - 26, x + wide - 3, foot - 4, (176, 120, 76))
        for _ in range(5):
            r = between(rng, 3, 5)
            ellipse(image, x + between(rng, 14, wide - 14), foot - 28, r, r, vary(rng, pick(rng, stripes), 20))
        for i in range(6):
            a, b = x + i * wide / 6, x + (i + 1) * wide / 6
            shade = tone if i % 2 == 0 else np.float32((250, 244, 232))
            polygon(image, [(a + 2, foot - 74), (b + 1, foot - 74), (b, foot - 54), (a, foot - 54)], shade)
            ellipse(image, (a + b) / 2, foot - 54, wide / 12, 4, shade)
        x += wide + between(rng, 2, 10)
    street = canvas.gradient(vary(rng, (110, 78, 74)), vary(rng, (70, 50, 62)), start=foot)
    image = blend(image, street, canvas.below(foot))
    lanterns = []
    for base in (between(rng, 34, 44), between(rng, 70, 84)):
        sag, phase = between(rng, 10, 18), between(rng, 0, 20)
        for lx in np.arange(phase - 10, canvas.width + 10, between(rng, 30, 36)):
            lanterns.append((lx, base + sag * (1 - ((lx - canvas.x(128)) / canvas.x(128)) ** 2) + 8))
    small = np.zeros(canvas.shape, np.uint8)
    for lx, ly in lanterns:
        ellipse(small, lx, ly, 14, 14, 255)
    glows = blur(small, 10).astype(np.float32) / 255
    image = solid(blend(image, (255, 170, 90), 0.5 * glows))
    for (ax, ay), (bx, by) in itertools.pairwise(lanterns):
        if bx > ax:
            line(image, ax, ay - 10, bx, by - 10, (40, 30, 40))
    white = rng.random() < 0.3
    for i, (lx, ly) in enumerate(lanterns):
        tone = np.float32((250, 236, 200) if white and i % 2 else (238, 74, 48))
        ellipse(image, lx, ly, 8, 9.5, tone)
        ellipse(image, lx, ly, 4.5, 8, np.minimum(tone * 1.25 + 24, 255))
        rectangle(image, lx - 4, ly - 11, lx + 5, ly - 8, (50, 34, 34))
        rectangle(image, lx - 4, ly + 8, lx + 5, ly + 11, (50, 34, 34))
    return Backdrop(image, (214, 246), shadow=0.4)


def _firework(canvas: Canvas, image: np.ndarray, rng: Rng, x: float, y: float) -> np.ndarray:
    tint = vary(rng, pick(rng, ((255, 120, 120), (255, 214, 110), (130, 220, 255), (240, 150, 255), (150, 255, 170))))
    image = solid(blend(image, tint, 0.35 * canvas.glow(x, y, 30)))
    for ring in (16, 30, 42):
        for a in np.arange(0, 6.28, 0.36) + between(rng, 0, 0.3):
            c, s = np.cos(a), np.sin(a)
            line(image, x + c * ring * 0.72, y + s * ring * 0.72, x + c * ring, y + s * ring + 1.5, tint, 1)
            ellipse(image, x + c * ring, y + s * ring + 1.5, 1.3, 1.3, np.minimum(tint + 60, 255))
    return image
