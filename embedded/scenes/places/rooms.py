"""Rooms: Japanese and western."""

import numpy as np

from embedded.scenes.canvas import Canvas, blend, ellipse, line, polygon, rectangle, solid, vary
from embedded.scenes.chance import Rng, between, pick
from embedded.scenes.places.backdrop import Backdrop


def tatami_room(canvas: Canvas, rng: Rng) -> Backdrop:
    """和室: mats before sliding screens."""
    wall = vary(rng, pick(rng, ((232, 218, 188), (214, 206, 178), (222, 200, 160), (206, 212, 190))), 8)
    image = solid(canvas.plain(wall) + 4 * canvas.noise(rng, 0)[..., None])
    foot = between(rng, 158, 178)
    wood = vary(rng, pick(rng, ((134, 92, 56), (104, 70, 46), (160, 116, 72))), 8)
    _shoji(canvas, image, rng, foot, wood)
    rectangle(image, 0, 22, canvas.width, 29, wood)
    rectangle(image, 0, foot - 5, canvas.width, foot, wood * 0.9)
    mat = vary(rng, pick(rng, ((196, 202, 130), (206, 200, 140), (178, 190, 120))), 8)
    weave = (1 + 0.025 * np.sin(canvas.rows * 2.2)) * np.ones_like(canvas.columns)
    tatami = solid(mat * weave[..., None] + 3 * canvas.noise(rng, 1)[..., None])
    border = vary(rng, pick(rng, ((66, 84, 58), (58, 64, 96), (90, 60, 50), (40, 60, 50))), 6)
    centre = between(rng, canvas.x(100), canvas.x(156))
    reach = max(3, int(canvas.x(3)))
    for k in range(-reach, reach + 1):  # borders run to a vanishing point
        x0, x1 = centre + k * 62, centre + k * 130
        polygon(tatami, [(x0 - 1.5, foot), (x0 + 1.5, foot), (x1 + 4, canvas.height), (x1 - 4, canvas.height)], border)
    row = foot + between(rng, 26, 44)
    rectangle(tatami, 0, row, canvas.width, row + 4, border)
    image = blend(image, tatami, canvas.below(foot))
    return Backdrop(solid(image), (214, 246))


def _shoji(canvas: Canvas, image: np.ndarray, rng: Rng, foot: float, wood: np.ndarray) -> None:
    """Draw sliding screens of paper, and sometimes an alcove beside them."""
    paper = vary(rng, (252, 248, 236), 5)
    kind = rng.random()
    left, panels = between(rng, -20, canvas.x(60)), max(1, int(canvas.x(2 + int(rng.random() * 3))))
    wide = between(rng, 52, 66)
    if kind < 0.2:  # an alcove with a hanging scroll beside the screen
        x = between(rng, canvas.x(176), canvas.x(206))
        rectangle(image, x, 40, x + 34, 128, vary(rng, (120, 130, 110), 14))
        rectangle(image, x + 5, 50, x + 29, 118, (246, 240, 222))
        for i in range(3):
            top, foot_of = x + 17 + between(rng, -5, 5), x + 17 + between(rng, -5, 5)
            line(image, top, 62 + 14 * i, foot_of, 74 + 14 * i, (40, 40, 44), 3)
        left, panels = min(left, 20), max(1, int(canvas.x(2)))
    for p in range(panels):
        x = left + p * wide
        rectangle(image, x, 29, x + wide, foot - 5, wood)
        rectangle(image, x + 4, 33, x + wide - 4, foot - 30, paper)
        rectangle(image, x + 4, foot - 28, x + wide - 4, foot - 8, wood * 1.2)
        for i in (1, 2, 3):
            line(image, x + 4 + i * (wide - 8) / 4, 33, x + 4 + i * (wide - 8) / 4, foot - 30, wood)
        for j in range(1, 6):
            y = 33 + j * (foot - 63) / 6
            line(image, x + 4, y, x + wide - 4, y, wood)


def room(canvas: Canvas, rng: Rng) -> Backdrop:
    """部屋: a window, a wooden floor, mostly a rug."""
    walls = (244, 230, 206), (206, 226, 232), (240, 214, 214), (214, 230, 206), (226, 220, 240), (250, 240, 200)
    wall = vary(rng, pick(rng, walls), 8)
    image = canvas.plain(wall)
    if rng.random() < 0.4:
        image = image - 7 * (np.sin(canvas.columns / between(rng, 2.5, 6)) > 0.3)[..., None]
    image = solid(image * np.ones((canvas.height, 1, 1), np.float32))
    foot = between(rng, 164, 184)
    x = between(rng, canvas.x(20), canvas.x(150))
    wide, tall, y = between(rng, 64, 88), between(rng, 66, 84), between(rng, 26, 44)
    frame = vary(rng, pick(rng, ((255, 252, 246), (150, 106, 70))), 5)
    rectangle(image, x - 5, y - 5, x + wide + 5, y + tall + 5, frame)
    rectangle(image, x, y, x + wide, y + tall, vary(rng, (150, 208, 244)))
    ellipse(image, x + wide * 0.3, y + tall * 0.35, 9, 5, (255, 255, 255))
    ellipse(image, x + wide * 0.42, y + tall * 0.38, 10, 5, (255, 255, 255))
    rectangle(image, x, y + tall * 0.75, x + wide, y + tall, vary(rng, (130, 196, 110)))
    rectangle(image, x + wide / 2 - 2, y, x + wide / 2 + 2, y + tall, frame)
    rectangle(image, x, y + tall / 2 - 2, x + wide, y + tall / 2 + 2, frame)
    curtain = vary(rng, pick(rng, ((226, 110, 110), (110, 150, 210), (240, 190, 90), (130, 180, 130))), 10)
    for side in (x - 16, x + wide - 2):
        for i in range(3):
            rectangle(image, side + i * 6, y - 8, side + i * 6 + 6, y + tall + 12, curtain * (0.92 + 0.08 * (i % 2)))
    other = x + wide + 44 if x < canvas.x(80) else x - 52
    if rng.random() < 0.7:
        art = vary(rng, pick(rng, ((240, 190, 110), (140, 190, 220), (200, 150, 190))))
        rectangle(image, other - 18, y + 4, other + 18, y + 50, (130, 92, 62))
        rectangle(image, other - 14, y + 8, other + 14, y + 46, art)
        ellipse(image, other, y + 30, 9, 9, art * 0.75)
    floor = vary(rng, pick(rng, ((196, 150, 100), (170, 120, 80), (216, 180, 130))), 8)
    boards = solid(canvas.plain(floor) + 3 * canvas.noise(rng, 1)[..., None])
    for i, row in enumerate(foot + np.float32([0, 10, 24, 44, 70])):
        line(boards, 0, row, canvas.width, row, floor * 0.86)
        for bx in np.arange((i % 2) * 34, canvas.width, 68):
            line(boards, bx, row, bx - 4, row + 12 + 5 * i, floor * 0.86)
    image = solid(blend(image, boards, canvas.below(foot)))
    rectangle(image, 0, foot - 6, canvas.width, foot, np.minimum(wall * 1.06, 255) * 0.95)
    if rng.random() < 0.6:
        rug = vary(rng, pick(rng, ((214, 90, 90), (90, 130, 190), (120, 170, 130), (230, 190, 120))), 10)
        ellipse(image, canvas.x(128), 228, canvas.x(112), 26, rug * 0.85)
        ellipse(image, canvas.x(128), 227, canvas.x(104), 22, rug)
    return Backdrop(image, (218, 244))
