"""Open country: meadow, field of flowers, rice, desert."""

import numpy as np

from embedded.scenes.canvas import Canvas, blend, ellipse, line, polygon, rectangle, solid, vary
from embedded.scenes.chance import Rng, between, pick
from embedded.scenes.places.backdrop import Backdrop
from embedded.scenes.places.parts import clouds, grass, hill, sky, sun


def meadow(canvas: Canvas, rng: Rng) -> Backdrop:
    """草原: green hills, sometimes with flowers."""
    image = sky(canvas, rng)
    if rng.random() < 0.3:
        image = sun(canvas, image, rng)
    image = clouds(canvas, image, rng, 2 + int(rng.random() * 3), 26, 110)
    green = pick(rng, ((120, 196, 84), (140, 206, 90), (104, 184, 92)))
    base = between(rng, 124, 144)
    image, _ = hill(canvas, image, rng, base, 16, vary(rng, (156, 206, 140)), vary(rng, (120, 190, 110)))
    image, _ = hill(canvas, image, rng, between(rng, 148, 162), 10, vary(rng, green, 8) + 14, vary(rng, green, 8))
    image, outline = hill(canvas, image, rng, between(rng, 170, 184), 7, vary(rng, green), vary(rng, (66, 150, 58)))
    flowers = pick(rng, ((), ((255, 255, 255), (255, 226, 90)), ((255, 150, 190), (255, 255, 255)), ((250, 214, 60),)))
    image = grass(canvas, image, rng, outline, 190, ((86, 170, 62), (160, 220, 104), (72, 150, 58)), flowers)
    return Backdrop(image, (206, 244))


_FLOWERS = (  # the colours of a field
    ((250, 96, 130), (255, 160, 186), (255, 226, 236)),
    ((255, 214, 40), (255, 236, 110), (255, 180, 40)),
    ((150, 110, 220), (186, 150, 240), (120, 90, 200)),
    ((240, 70, 70), (255, 214, 60), (250, 140, 190), (255, 255, 255), (160, 110, 230)),
    ((120, 170, 250), (180, 210, 255), (255, 255, 255)),
)
_PETALS = [(0.75 * np.cos(a), 0.6 * np.sin(a)) for a in (0.3, 1.56, 2.8, 4.1, 5.3)]


def flower_field(canvas: Canvas, rng: Rng) -> Backdrop:
    """花畑: rows of flowers up to the hills."""
    image = clouds(canvas, sky(canvas, rng), rng, 2 + int(rng.random() * 3), 24, 90)
    image, _ = hill(canvas, image, rng, between(rng, 112, 130), 14, (150, 200, 150), (120, 184, 120))
    top = between(rng, 136, 152)
    image, outline = hill(canvas, image, rng, top, 6, vary(rng, (110, 184, 88)), vary(rng, (64, 148, 64)))
    image = solid(image)
    palette = pick(rng, _FLOWERS)
    for y in np.linspace(top + 4, canvas.height + 4, 14):
        near = (y - top) / (canvas.height - top)
        for x in np.arange(between(rng, -12, 0), canvas.width, 9 + 13 * near):
            fx, fy = x + between(rng, -3, 3), y + between(rng, -3, 3)
            if fy < outline[min(canvas.width - 1, max(0, int(fx)))]:
                continue
            radius, tone = 1.7 + 3.8 * near, pick(rng, palette)
            if near < 0.25:
                ellipse(image, fx, fy, radius, radius * 0.8, tone)
                continue
            line(image, fx, fy, fx, fy + 2.4 * radius, (70, 150, 66))
            for dx, dy in _PETALS:
                ellipse(image, fx + radius * dx, fy + radius * dy, radius * 0.62, radius * 0.56, tone)
            eye = (255, 206, 60) if tone[0] < 255 or tone[2] > 100 else (150, 90, 30)
            ellipse(image, fx, fy, radius * 0.42, radius * 0.4, eye)
    return Backdrop(image, (214, 246), shadow=0.25)


def paddy(canvas: Canvas, rng: Rng) -> Backdrop:
    """田んぼ: rows of rice, young or ripe, behind a path."""
    image = clouds(canvas, sky(canvas, rng), rng, 1 + int(rng.random() * 3), 20, 80)
    far = vary(rng, (104, 152, 140))
    image, _ = hill(canvas, image, rng, 122, 24, far + 34, far + 20)
    image, _ = hill(canvas, image, rng, 134, 12, far - 8, far - 20)
    season = rng.random()
    ripe, top = season > 0.66, 142.0
    leaf = vary(rng, (222, 180, 66) if ripe else (96, 176, 66), 10)
    soil = canvas.gradient((170, 204, 224), (120, 160, 190), start=top) if season < 0.4 else canvas.plain(leaf * 0.72)
    image = solid(blend(image, soil, canvas.below(top)))
    centre = between(rng, canvas.x(70), canvas.x(186))
    reach = max(26, int(canvas.x(26)))
    for k in np.arange(-reach, reach + 1):
        x0, x1 = centre + k * 11, centre + k * 34
        row = [(x0 - 1.6, top), (x0 + 1.6, top), (x1 + 6.5, canvas.height), (x1 - 6.5, canvas.height)]
        polygon(image, row, leaf * (0.96 + 0.06 * (k % 2)))
    for y in np.linspace(top + 3, canvas.height + 5, 16):
        near = (y - top) / (canvas.height - top)
        for x in np.arange(between(rng, -8, 0), canvas.width, 8 + 9 * near):
            fx = x + between(rng, -2, 2)
            tall = 3 + 10 * near
            line(image, fx, y, fx + between(rng, -2, 2), y - tall, leaf * between(rng, 0.85, 1.2))
            if ripe and near > 0.3:
                ellipse(image, fx + 1, y - tall, 1 + near, 2, (240, 206, 100))
    ridge_row = between(rng, 196, 210)
    rectangle(image, 0, ridge_row, canvas.width, ridge_row + 32, vary(rng, (150, 160, 90), 10))
    rectangle(image, 0, ridge_row + 28, canvas.width, ridge_row + 34, (126, 110, 74))
    edge = np.full(canvas.width, ridge_row, np.float32)
    image = grass(canvas, image, rng, edge, 40, ((110, 160, 70), (140, 180, 84)))
    return Backdrop(image, (ridge_row + 12, ridge_row + 26))


def desert(canvas: Canvas, rng: Rng) -> Backdrop:
    """砂漠: dunes, sometimes with pyramids or a cactus."""
    warm = rng.random() < 0.3
    image = canvas.gradient((250, 180, 110), (255, 226, 170), end=150) if warm else sky(canvas, rng)
    image = sun(canvas, image, rng, 60)
    sand = vary(rng, pick(rng, ((236, 192, 116), (228, 170, 100), (242, 208, 140))), 8)
    image = solid(image)
    if rng.random() < 0.4:
        for _ in range(2):
            x, size = between(rng, canvas.x(30), canvas.x(226)), between(rng, 26, 46)
            polygon(image, [(x - size, 150), (x + size, 150), (x, 150 - size)], sand * 0.9)
            polygon(image, [(x + size * 0.25, 150), (x + size, 150), (x, 150 - size)], sand * 0.72)
    for base, height, tone in ((138, 12, 0.98), (164, 13, 0.94), (192, 9, 1.02)):
        outline = canvas.ridge(rng, base, height, 0.2)
        crest = canvas.ridge(rng, base + 18, height * 1.4, 0.2)
        image = blend(image, sand * tone, canvas.below(outline))
        shade = canvas.below(outline) * canvas.below(crest) * np.clip((base + 48 - canvas.rows) / 30, 0, 1)
        image = blend(image, sand * tone * 0.84, shade)
    ripples = np.sin(canvas.rows * 0.8 + 2.5 * canvas.noise(rng, 3)) * np.clip((canvas.rows - 190) / 60, 0, 1)
    image = solid(image + 5 * ripples[..., None])
    for _ in range(int(rng.random() * 3)):
        x = canvas.x(pick(rng, (between(rng, 8, 60), between(rng, 196, 248))))
        y, h = between(rng, 172, 200), between(rng, 20, 36)
        green = vary(rng, (70, 140, 82), 10)
        line(image, x, y, x, y - h, green, 5)
        line(image, x, y - h * 0.4, x - 8, y - h * 0.4, green, 3)
        line(image, x - 8, y - h * 0.4, x - 8, y - h * 0.7, green, 3)
        line(image, x, y - h * 0.55, x + 8, y - h * 0.55, green, 3)
        line(image, x + 8, y - h * 0.55, x + 8, y - h * 0.85, green, 3)
    return Backdrop(image, (214, 246))
