"""What several styles do: smooth patches, lines, outlines, an unsteady hand, paper."""

import cv2
import numpy as np

from embedded.scenes.canvas import Canvas, blur
from embedded.scenes.chance import Rng

GREY = np.float32([0.299, 0.587, 0.114])


def smoothed(image: np.ndarray, size: int = 5) -> np.ndarray:
    """Flat patches with clean edges: small details and texture go."""
    return cv2.medianBlur(cv2.medianBlur(image, size), size)


def saturated(image: np.ndarray, by: float) -> np.ndarray:
    """The picture with its colours `by` times as far from grey; float32."""
    image = image.astype(np.float32)
    grey = image @ GREY
    return np.clip(grey[..., None] + (image - grey[..., None]) * by, 0, 255)


def to_grey(image: np.ndarray) -> np.ndarray:
    """The lightness of a picture (uint8), in [0, 1]."""
    return cv2.cvtColor(image, cv2.COLOR_RGB2GRAY).astype(np.float32) / 255


def ink_lines(image: np.ndarray, width: float = 1.2, strength: float = 9.0) -> np.ndarray:
    """Ink lines in [0, 1] where any channel is darker than its neighbourhood (a difference of Gaussians)."""
    image = image.astype(np.float32) / 255
    dark = blur(image, width * 2.2) - blur(image, width * 0.8)
    return np.clip(strength * dark.max(-1) - 0.12, 0, 1)


def outlines(label: np.ndarray, width: int = 3) -> np.ndarray:
    """The outlines of the things, in [0, 1]."""
    kernel = cv2.getStructuringElement(cv2.MORPH_ELLIPSE, (width, width))
    edge = cv2.morphologyEx(label, cv2.MORPH_GRADIENT, kernel) > 0
    return blur(edge.astype(np.float32), 0.7)


def wobbled(canvas: Canvas, rng: Rng, by: float, scale: int, *layers: np.ndarray) -> tuple[np.ndarray, ...]:
    """Shift the pixels of all layers a little, as an unsteady hand would; labels stay whole numbers."""
    x = (canvas.columns + by * canvas.noise(rng, scale)).astype(np.float32)
    y = (canvas.rows + by * canvas.noise(rng, scale)).astype(np.float32)
    ways = [cv2.INTER_LINEAR if layer.ndim == 3 else cv2.INTER_NEAREST for layer in layers]
    return tuple(cv2.remap(layer, x, y, way, None, cv2.BORDER_REFLECT) for layer, way in zip(layers, ways, strict=True))


def paper_sheet(canvas: Canvas, rng: Rng, tone: tuple[float, float, float], rough: float = 3.0) -> np.ndarray:
    """Paper of a tone with some roughness; float32."""
    return np.float32(tone) + (rough * canvas.noise(rng, 0) + rough * 0.8 * canvas.noise(rng, 2))[..., None]


def vignette(canvas: Canvas, strength: float) -> np.ndarray:
    """1 in the middle, darker towards the corners: height x width x 1."""
    across = ((canvas.columns - canvas.width / 2) / canvas.x(150)) ** 2
    down = ((canvas.rows - canvas.height / 2) / canvas.y(150)) ** 2
    return (1 - strength * (across + down) ** 1.3).clip(0, 1)[..., None]


def border_lines(index: np.ndarray, width: int) -> np.ndarray:
    """Where the index changes: lines of about `width` pixels, in [0, 1]."""
    edge = np.zeros(index.shape, np.uint8)
    edge[:, 1:] |= index[:, 1:] != index[:, :-1]
    edge[1:] |= index[1:] != index[:-1]
    if width > 1:
        edge = cv2.dilate(edge, cv2.getStructuringElement(cv2.MORPH_ELLIPSE, (width, width)))
    return blur(edge.astype(np.float32), 0.6)
