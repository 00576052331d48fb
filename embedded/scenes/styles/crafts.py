"""Prints and handicraft: woodcut, cut paper, stained glass, embroidery."""

from functools import cache

import cv2
import numpy as np

from embedded.scenes.canvas import BANK, Canvas, blend, blur, line, solid
from embedded.scenes.chance import Rng
from embedded.scenes.styles.inks import UKIYOE, WASHI, nearest, palette_tables
from embedded.scenes.styles.strokes import painted
from embedded.scenes.styles.tools import (
    border_lines,
    ink_lines,
    outlines,
    saturated,
    smoothed,
    vignette,
)


def ukiyoe(canvas: Canvas, image: np.ndarray, label: np.ndarray, rng: Rng) -> np.ndarray:
    """浮世絵: flat old inks with dark outlines, a sky that deepens upwards, wood grain and paper."""
    smooth = smoothed(image, 5)
    index = cv2.medianBlur(nearest(smooth, palette_tables()[0]), 3)
    inks = 0.86 * np.float32(UKIYOE)[index] + 0.14 * smooth
    depth = np.clip(1 - canvas.rows / canvas.y(70 + 30 * rng.random()), 0, 1) ** 1.4 * (label == 0)
    top = ((22, 44, 92), (30, 60, 110), (150, 52, 44))[int(rng.random() * 2.4)]
    inks = blend(inks, top, 0.85 * blur(depth.astype(np.float32), 1.0))
    ink = np.maximum(ink_lines(smooth, 1.0, 5.0) * np.where(label > 0, 0.9, 0.55), outlines(label, 3))
    inks = blend(inks, (30, 28, 38), np.clip(ink, 0, 1).astype(np.float32))
    grain = 0.5 + 0.5 * np.sin(canvas.rows * 0.55 + 5 * canvas.noise(rng, 4) + 0.6 * canvas.noise(rng, 3))
    inks = inks * (1 - 0.05 * grain - 0.022 * canvas.noise(rng, 0))[..., None] + np.float32([5, 2, -6])
    result = solid(inks)
    if rng.random() < 0.6:  # the title in a red cartouche
        x = 14 if rng.random() < 0.5 else canvas.width - 14 - 17
        cv2.rectangle(result, (x, 14), (x + 17, 68), (186, 58, 44), -1)
        cv2.rectangle(result, (x, 14), (x + 17, 68), (40, 30, 36), 1)
        for k in range(4):
            for _ in range(4):
                cx, cy = x + 8.5, 22 + 12.6 * k
                dx, dy = rng.random(2) * 8 - 4
                line(result, cx - dx, cy - dy, cx + dx * 0.6, cy + dy, (34, 24, 28))
    cv2.rectangle(result, (0, 0), (canvas.width - 1, canvas.height - 1), (238, 226, 198), 13)
    cv2.rectangle(result, (6, 6), (canvas.width - 7, canvas.height - 7), (44, 38, 42), 1)
    return result


def kirie(canvas: Canvas, image: np.ndarray, label: np.ndarray, rng: Rng) -> np.ndarray:
    """切り絵: black paper with windows of few flat colours."""
    index = cv2.medianBlur(nearest(smoothed(image, 7), palette_tables()[1]), 5)
    flat = np.float32(WASHI)[index]
    cut = np.maximum(border_lines(index, 3), np.clip(outlines(label, 5) * 1.2, 0, 1))
    cut = np.maximum(cut, ink_lines(cv2.medianBlur(image, 3), 1.3, 6.0) * (label > 0))
    cut = np.clip((blur(np.clip(cut, 0, 1), 0.8) - 0.3) * 3.2, 0, 1)
    fibres = 1 + 0.035 * canvas.noise(rng, 0) + 0.03 * canvas.noise(rng, 1)
    shade = np.roll(blur(cut, 1.5), (2, 2), (0, 1))
    flat = flat * (fibres * (1 - 0.3 * shade))[..., None]
    result = solid(blend(flat, (20, 18, 22), cut.astype(np.float32)))
    cv2.rectangle(result, (0, 0), (canvas.width - 1, canvas.height - 1), (20, 18, 22), 11)
    return result


@cache
def _panes(step: int = 19) -> np.ndarray:
    """The number of the pane at each pixel of a cracked sheet, BANK x BANK."""
    rng = np.random.default_rng(3)
    side = BANK
    grid = np.stack(np.meshgrid(np.arange(0, side, step), np.arange(0, side, step)), -1).reshape(-1, 2)
    seeds = (grid + rng.uniform(0, step, grid.shape)).clip(0, side - 1).astype(int)
    empty = np.full((side, side), 255, np.uint8)
    empty[seeds[:, 1], seeds[:, 0]] = 0
    return cv2.distanceTransformWithLabels(empty, cv2.DIST_L2, 5, labelType=cv2.DIST_LABEL_PIXEL)[1]


def mosaic(canvas: Canvas, image: np.ndarray, label: np.ndarray, rng: Rng) -> np.ndarray:
    """ステンドグラス: panes of bright glass, cut along the things, in dark lead."""
    panes = _panes()[canvas.window(rng, BANK)]
    smooth = smoothed(image, 5)
    tone = cv2.medianBlur(nearest(smooth, palette_tables()[1]), 5)
    ids = (panes.astype(np.int64) * 4 + label) * 21 + np.where(label > 0, tone + 1, 0)
    flat = ids.ravel()
    count = np.maximum(np.bincount(flat), 1)
    mean = np.stack([np.bincount(flat, smooth[..., c].ravel()) / count for c in range(3)], -1).astype(np.float32)
    shade = (0.9 + 0.24 * rng.random((len(count), 1))).astype(np.float32)
    glass = saturated((mean * shade + 6)[ids], 1.45)
    glass = (
        glass * (1.02 + 0.05 * canvas.noise(rng, 1) + 0.06 * canvas.noise(rng, 3))[..., None] * vignette(canvas, 0.22)
    )
    lead = np.maximum(border_lines(panes * 4 + label, 2), outlines(label, 4))
    lead = np.maximum(lead, 0.75 * border_lines(ids, 1))
    return solid(blend(glass, (24, 24, 30), np.clip(lead * 1.1, 0, 1).astype(np.float32)))


def embroidery(canvas: Canvas, image: np.ndarray, label: np.ndarray, rng: Rng) -> np.ndarray:
    """刺繍: rows of shining stitches, on linen where the ground is light."""
    smooth = cv2.medianBlur(image, 5)
    thread, height = painted(canvas, smooth, rng, 14, 2.6, 0.45)
    thread = saturated(thread, 1.15) * (1 + 0.2 * height.clip(-1.4, 1.4))[..., None]
    weave = np.sin(canvas.columns * 1.57) * np.sin(canvas.rows * 1.57)
    linen = np.float32([232, 222, 202]) + (9 * weave + 3.5 * canvas.noise(rng, 0))[..., None]
    bare = (image.min(-1) > 238) & (label == 0)
    if bare.sum() < 0.3 * max(1, (label == 0).sum()):  # a white cloud is no linen
        bare[:] = False
    bare = cv2.erode(bare.astype(np.float32), np.ones((3, 3), np.uint8))
    shadow = blur(np.roll(1 - bare, (2, 2), (0, 1)), 2.0)
    return solid(blend(thread, linen * (1 - 0.3 * shadow * bare)[..., None], bare))
