"""Paint and crayon: oil, watercolour, pastel, crayon."""

import cv2
import numpy as np

from embedded.scenes.canvas import Canvas, blend, blur, solid
from embedded.scenes.chance import Rng, pick
from embedded.scenes.styles.strokes import painted
from embedded.scenes.styles.tools import GREY, ink_lines, outlines, paper_sheet, saturated, to_grey, wobbled


def oil(canvas: Canvas, image: np.ndarray, label: np.ndarray, rng: Rng) -> np.ndarray:
    """油絵: thick strokes, finer where there is detail, lit from the upper left."""
    (smooth,) = wobbled(canvas, rng, 1.3, 1, cv2.medianBlur(image, 3))
    broad, relief = painted(canvas, smooth, rng, 28, 9, 1.3)
    fine, relief_fine = painted(canvas, smooth, rng, 12, 4, 1.3)
    grey = to_grey(cv2.medianBlur(image, 5))
    detail = np.hypot(cv2.Sobel(grey, -1, 1, 0), cv2.Sobel(grey, -1, 0, 1))
    near = cv2.dilate((detail > 0.16).astype(np.float32), np.ones((5, 5), np.uint8))
    near = np.clip(blur(near, 1.5) * 1.3 + (label > 0) * 0.25, 0, 1)
    paint = blend(broad.astype(np.float32), fine, near)
    height = relief + (relief_fine * 0.9 - relief) * near
    light = np.zeros_like(height)
    light[1:, 1:] = height[1:, 1:] - height[:-1, :-1]
    paint = paint + (9 * canvas.noise(rng, 2) + 7 * canvas.noise(rng, 3))[..., None] * np.float32([1, 0.7, 0.3])
    paint = saturated(paint, 1.2) * (1 + 0.075 * height + 0.1 * light.clip(-1.2, 1.2))[..., None]
    return solid((paint - 128) * 1.06 + 126)


def watercolour(canvas: Canvas, image: np.ndarray, label: np.ndarray, rng: Rng) -> np.ndarray:
    """水彩画: thin uneven washes that end in darker rims, white paper at the borders."""
    paper = paper_sheet(canvas, rng, (253, 250, 242), 2.0)
    colour, shape = wobbled(canvas, rng, 1.5, 2, cv2.medianBlur(image, 5), label)
    colour = colour.astype(np.float32)
    inside = blur((shape > 0).astype(np.float32), 1.0)
    colour = blend(blend(colour, blur(colour, 6), np.float32(0.55) * np.ones_like(inside)), colour, inside)
    wash = 0.74 + 0.15 * canvas.clouded(rng) + 0.04 * canvas.noise(rng, 0)
    rim = np.clip((blur(colour, 2.6) - colour).max(-1) / 55, 0, 1) + 0.5 * blur(outlines(shape, 3), 0.6)
    ink = (1 - saturated(colour, 1.15) / 255) * np.clip(wash + 0.4 * rim, 0.35, 1.25)[..., None]
    reach = (
        np.minimum(
            np.minimum(canvas.columns, canvas.width - 1 - canvas.columns),
            np.minimum(canvas.rows, canvas.height - 1 - canvas.rows),
        )
        - 8
    )
    reach = reach + 2.5 * canvas.noise(rng, 3) + 1.5 * canvas.noise(rng, 2)
    edge = np.clip(reach / 2.5, 0, 1)
    edge = edge * (1 + 0.35 * np.exp(-(((reach - 4) / 3) ** 2)))
    return solid(paper * np.clip(1 - 0.88 * ink * edge[..., None], 0, 1))


def pastel(canvas: Canvas, image: np.ndarray, label: np.ndarray, rng: Rng) -> np.ndarray:
    """パステル画: light chalky colour, soft edges, the grain of the paper."""
    (soft,) = wobbled(canvas, rng, 0.9, 1, cv2.medianBlur(image, 3))
    soft = blur(soft.astype(np.float32), 0.9)
    chalk, height = painted(canvas, solid(soft), rng, 18, 3.2, 0.25)
    light = 255 - (255 - (0.5 * soft + 0.5 * chalk)) * 0.74
    light = light + (light - (light @ GREY)[..., None]) * 0.18
    paper = paper_sheet(canvas, rng, pick(rng, ((250, 244, 232), (240, 232, 220), (236, 238, 240))), 2)
    grain = 0.84 + 0.13 * canvas.noise(rng, 0) + 0.12 * height + 0.06 * canvas.noise(rng, 2)
    grain = grain + np.where(label > 0, 0.1, 0).astype(np.float32)
    return solid(blend(paper, light, np.clip(grain, 0.15, 1)))


def crayon(canvas: Canvas, image: np.ndarray, label: np.ndarray, rng: Rng) -> np.ndarray:
    """クレヨン画: waxy strokes with gaps, wobbly dark outlines, as children draw."""
    moved, shape = wobbled(canvas, rng, 2.4, 3, cv2.medianBlur(image, 5), label)
    wax, height = painted(canvas, moved, rng, 24, 4, 0.3)
    lines = np.maximum(ink_lines(moved, 1.1, 4.0) * np.where(shape > 0, 0.75, 0.3), 0.9 * outlines(shape, 3))
    grain = canvas.noise(rng, 0)
    cover = np.clip(0.96 + 0.22 * height + 0.17 * grain + np.where(shape > 0, 0.1, -0.04), 0.1, 1)
    paper = paper_sheet(canvas, rng, (252, 250, 244), 1.5)
    picture = blend(paper, saturated(wax, 1.3) * (1 + 0.05 * height)[..., None], cover.astype(np.float32))
    dark = np.float32([40, 30, 36]) + 0.35 * moved
    return solid(blend(picture, dark, np.clip(lines * (0.85 + 0.2 * grain), 0, 1).astype(np.float32)))
