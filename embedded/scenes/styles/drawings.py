"""Lines of one colour: pencil, ink, manga, chalk."""

import cv2
import numpy as np

from embedded.scenes.canvas import Canvas, blend, blur, line, solid
from embedded.scenes.chance import Rng
from embedded.scenes.styles.tools import ink_lines, outlines, paper_sheet, saturated, smoothed, to_grey, wobbled


def pencil(canvas: Canvas, image: np.ndarray, label: np.ndarray, rng: Rng) -> np.ndarray:
    """鉛筆画: grey lines and hatching on paper."""
    image, label = wobbled(canvas, rng, 0.8, 1, image, label)
    grey = to_grey(image)
    lines = ink_lines(image, 1.0, 5.0) * (0.8 + 0.2 * canvas.noise(rng, 0))
    shade = 1 - blur(grey, 1.6)
    hatch = 0.5 + 0.5 * np.sin((canvas.columns * 0.8 + canvas.rows) * 1.25 + 0.8 * canvas.noise(rng, 2))
    cross = 0.5 + 0.5 * np.sin((canvas.columns - 0.7 * canvas.rows) * 1.4 + 0.8 * canvas.noise(rng, 2))
    tone = np.clip(shade - 0.12, 0, 1) * (0.36 + 0.4 * hatch) + np.clip(shade - 0.55, 0, 1) * 0.55 * cross
    tone = tone * np.where(label > 0, 1.0, 0.62) * (1 + 0.28 * canvas.noise(rng, 0))
    dark = np.clip(0.72 * tone + 0.8 * lines.clip(0, 1) + 0.35 * outlines(label), 0, 0.88)
    return solid(paper_sheet(canvas, rng, (244, 243, 239), 2.0) * (1 - dark)[..., None] + 36 * dark[..., None])


def sumie(canvas: Canvas, image: np.ndarray, label: np.ndarray, rng: Rng) -> np.ndarray:
    """水墨画: grey washes and brush lines on paper, the ground dissolving in mist, a red seal."""
    moved, shape = wobbled(canvas, rng, 1.4, 2, smoothed(image, 3), label)
    shape = blur((shape > 0).astype(np.float32), 1.0)
    ground = np.median(to_grey(image)[label == 0]) if (label == 0).any() else 1.0
    grey = to_grey(moved)
    if ground < 0.45:  # a dark scene: ink for the things, mist for the night
        grey = grey + (1 - shape) * 0.3
    ink = np.clip(1 - grey, 0, 1)
    steps = ink * 3.5
    ink = (np.floor(steps) + np.clip((steps % 1 - 0.5) * 4 + 0.5, 0, 1)) / 3.5
    ink = blur(ink, 1.3)
    mist = np.clip(
        0.5 + 0.35 * canvas.clouded(rng) - 0.25 * np.abs(canvas.rows - canvas.y(120)) / canvas.y(128), 0.08, 0.85
    )
    wash = ink * (shape * 0.72 + (1 - shape) * mist) * (1 + 0.16 * canvas.noise(rng, 2) + 0.1 * canvas.noise(rng, 0))
    lines = ink_lines(moved, 1.7, 6.0) * np.clip(0.75 + 0.35 * canvas.noise(rng, 2), 0, 1.2) * (0.35 + 0.65 * shape)
    brush = outlines((shape * 255 > 127).astype(np.uint8), 3) * np.clip(0.6 + 0.5 * canvas.noise(rng, 3), 0, 1)
    dark = np.clip(0.85 * wash + 0.9 * np.maximum(lines, brush), 0, 0.93)
    paper = paper_sheet(canvas, rng, (243, 237, 222), 2.6)
    return _seal(canvas, blend(paper, (30, 30, 36), dark.astype(np.float32)), rng)


def _seal(canvas: Canvas, image: np.ndarray, rng: Rng, scale: float = 1.0) -> np.ndarray:
    """A red seal in a lower corner, as painters stamp."""
    image = solid(image)
    side = round(17 * scale)
    x, y = (12 if rng.random() < 0.5 else canvas.width - 12 - side), canvas.height - 14 - side
    cv2.rectangle(image, (x, y), (x + side, y + side), (196, 48, 40), -1)
    for i in range(2):
        for j in range(2):
            cx, cy = x + side * (0.28 + 0.44 * i), y + side * (0.28 + 0.44 * j)
            for _ in range(3):
                dx, dy = rng.random(2) * 6 - 3
                ends = (cx - dx, cy - dy, cx + dx, cy + dy)
                line(image, *ends, (246, 224, 206))
    return image


def manga(canvas: Canvas, image: np.ndarray, label: np.ndarray, rng: Rng) -> np.ndarray:
    """漫画: black lines and dots of screen tone on white."""
    grey = to_grey(smoothed(image, 3))
    dots = np.cos((canvas.columns + canvas.rows) * 1.05) + np.cos((canvas.columns - canvas.rows) * 1.05)
    tone = np.clip((1 - blur(grey, 1.5)) - 0.1, 0, 1) * 2.3 - 1.9
    dark = np.clip((tone + 0.55 * dots) * 2.2 + 0.3, 0, 1)
    dark = np.maximum(dark, np.clip((0.3 - grey) * 8, 0, 1))
    ink = np.clip(1.3 * ink_lines(cv2.medianBlur(image, 3), 1.1, 6.0), 0, 1) * np.where(label > 0, 1, 0.7)
    dark = np.maximum(dark * np.where(label > 0, 0.9, 0.75), np.maximum(ink, outlines(label, 3)))
    result = solid(np.repeat((252 - 236 * np.clip(dark, 0, 1))[..., None], 3, -1).astype(np.float32))
    cv2.rectangle(result, (0, 0), (canvas.width - 1, canvas.height - 1), (252, 252, 252), 9)
    cv2.rectangle(result, (5, 5), (canvas.width - 6, canvas.height - 6), (18, 18, 18), 2)
    return result


def chalk(canvas: Canvas, image: np.ndarray, label: np.ndarray, rng: Rng) -> np.ndarray:
    """黒板アート: chalk lines and rubbed chalk on a dark green board."""
    moved, shape = wobbled(canvas, rng, 1.2, 2, cv2.medianBlur(image, 5), label)
    grain = canvas.noise(rng, 0)
    board = np.float32([36, 72, 58]) + (5 * canvas.clouded(rng) + 2 * grain)[..., None]
    colour = 255 - (255 - saturated(moved, 1.35)) * 0.72
    light = to_grey(moved)
    lines = np.maximum(1.1 * ink_lines(moved, 1.2, 5.0) * np.where(shape > 0, 0.9, 0.5), 1.1 * outlines(shape, 3))
    hatch = 0.5 + 0.5 * np.sin((canvas.columns + 0.9 * canvas.rows) * 0.8 + 1.2 * canvas.noise(rng, 2))
    ground = (0.42 if np.median(light[label == 0]) < 0.96 else 0.0) if (label == 0).any() else 0.4
    fill = np.where(
        shape > 0, (0.72 + 0.22 * hatch) * (0.35 + 0.65 * light), ground * (0.6 + 0.5 * hatch) * (0.25 + light)
    )
    cover = np.clip(fill * (0.95 + 0.1 * grain), 0, 0.94)
    image = blend(board, colour, cover.astype(np.float32))
    return solid(blend(image, (248, 246, 240), np.clip(lines * (0.9 + 0.25 * grain), 0, 0.96).astype(np.float32)))
