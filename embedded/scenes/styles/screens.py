"""Light: pixel art, neon."""

import cv2
import numpy as np

from embedded.scenes.canvas import Canvas, blur, solid
from embedded.scenes.chance import Rng, pick
from embedded.scenes.styles.tools import outlines, saturated


def pixel(canvas: Canvas, image: np.ndarray, label: np.ndarray, rng: Rng) -> np.ndarray:
    """ドット絵: large cells of few colours."""
    one_large = label.max() == 1 and (label > 0).mean() > 0.22
    side = 8 if one_large and rng.random() < 0.6 else 4  # of a cell, in pixels
    cells = canvas.width // side, canvas.height // side
    small = cv2.resize(saturated(image, 1.2), cells, interpolation=cv2.INTER_AREA)
    small = np.round(small / 255 * 6) / 6 * 255
    return cv2.resize(solid(small), canvas.shape[::-1], interpolation=cv2.INTER_NEAREST)


def neon(canvas: Canvas, image: np.ndarray, label: np.ndarray, rng: Rng) -> np.ndarray:
    """ネオン: glowing tubes in the dark along the outlines."""
    smooth = blur(image, 1.1)
    x, y = (cv2.Sobel(smooth, cv2.CV_32F, *order, ksize=3) for order in ((1, 0), (0, 1)))
    edge = np.clip(np.hypot(x, y).max(-1) / 170 - 0.14, 0, 1) * np.where(label > 0, 1.0, 0.42)
    edge = np.maximum(edge, outlines(label, 3))
    hsv = cv2.cvtColor(cv2.dilate(smooth, np.ones((3, 3), np.uint8)), cv2.COLOR_RGB2HSV)
    base = pick(rng, (150, 165, 95, 130))  # for what has no hue of its own
    hsv[..., 0] = np.where(hsv[..., 1] < 46, base, hsv[..., 0])
    hsv[..., 1] = np.maximum(hsv[..., 1], 205)
    hsv[..., 2] = 255
    tube = cv2.cvtColor(hsv, cv2.COLOR_HSV2RGB).astype(np.float32) * edge[..., None]
    halo = blur(cv2.resize(tube, (canvas.width // 4, canvas.height // 4), interpolation=cv2.INTER_AREA), 2.4)
    halo = cv2.resize(halo, canvas.shape[::-1], interpolation=cv2.INTER_LINEAR)
    wall = saturated(image, 1.3) * np.where(label > 0, 0.2, 0.13)[..., None].astype(np.float32)
    wall = np.minimum(wall, 34) + np.float32([10, 6, 22])
    return solid(wall + 1.5 * halo + 0.9 * blur(tube, 1.4) + 0.6 * tube + 90 * (edge**3)[..., None])
