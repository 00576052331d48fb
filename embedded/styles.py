"""The styles of the embedded model, as filters that turn a drawing (RGBA, transparent background) into an RGB picture.

Arrays are float32 in [0, 1], (height, width, channels). The filters are deterministic: the same drawing always gives
the same picture.
"""

from collections.abc import Callable
from functools import cache

import numpy as np
from PIL import Image, ImageFilter

COLOURS = {  # of backgrounds
    "blue": (54, 104, 214),
    "red": (206, 44, 48),
    "green": (52, 140, 76),
    "yellow": (250, 210, 60),
    "pink": (246, 160, 190),
    "purple": (132, 76, 180),
}


def _array(image: Image.Image) -> np.ndarray:
    return np.asarray(image, np.float32) / 255


def _image(array: np.ndarray) -> Image.Image:
    return Image.fromarray((array.clip(0, 1) * 255 + 0.5).astype(np.uint8))


def _blur(array: np.ndarray, radius: float) -> np.ndarray:
    return _array(_image(array).filter(ImageFilter.GaussianBlur(radius)))


def flatten(drawing: Image.Image, ground: tuple[int, int, int] = (255, 255, 255)) -> Image.Image:
    """Return the drawing as RGB on a background of one colour, by default white."""
    canvas = Image.new("RGBA", drawing.size, (*ground, 255))
    canvas.alpha_composite(drawing)
    return canvas.convert("RGB")


@cache
def _strokes(size: int) -> np.ndarray:
    """Return brush marks, (size, size) in [-1, 1]: two layers of soft slanted dashes, the same on every call."""
    rng = np.random.default_rng(7)
    marks = np.zeros((size, size), np.float32)
    for angle in (35, -20):
        dashes = Image.fromarray(rng.normal(size=(size // 5, size // 16)).astype(np.float32))
        turned = dashes.resize((2 * size, 2 * size), Image.BICUBIC).rotate(angle, Image.BICUBIC)
        middle = np.asarray(turned)[size // 2 : size // 2 + size, size // 2 : size // 2 + size]
        marks += middle / middle.std()
    return (marks / 2.5).clip(-1, 1)


def oil(drawing: Image.Image, ground: tuple[int, int, int] = (94, 62, 38)) -> Image.Image:
    """Paint the drawing in oil (油絵): patches of one colour, a dark canvas, light and dark brush marks, a dark rim."""
    size = drawing.size[0]
    image = flatten(drawing, ground).resize((size // 2, size // 2), Image.BOX).filter(ImageFilter.ModeFilter(7))
    paint = _array(image.resize((size, size), Image.BICUBIC).filter(ImageFilter.GaussianBlur(1.5)))
    alpha = _blur(_array(drawing)[..., 3], 3)[..., None]
    rim = 4 * alpha * (1 - alpha)
    marks = _strokes(size)[..., None]
    return _image(paint * (0.92 - 0.35 * rim) * (1 + 0.26 * marks) + np.float32([0.05, 0.03, 0.0]))


def watercolour(drawing: Image.Image, ground: tuple[int, int, int] | None = None) -> Image.Image:
    """Paint the drawing in watercolour (水彩画): thin, blurred, uneven colour on cream paper, darker at the rim."""
    size = drawing.size[0]
    paper = np.float32([0.98, 0.955, 0.89])
    tint = paper if ground is None else 0.45 * paper + 0.55 * np.float32(ground) / 255
    colour = _blur(_array(flatten(drawing)), 4)
    alpha = _blur(_array(drawing)[..., 3], 3.5)[..., None]
    wash = 0.66 + 0.16 * _strokes(size)[..., None]
    rim = 4 * alpha * (1 - alpha)
    ink = 1 - (1 - colour) * (wash + 0.45 * rim)
    return _image((alpha * paper * ink + (1 - alpha) * tint) * (1 - 0.10 * rim))


def pencil(drawing: Image.Image) -> Image.Image:
    """Draw the drawing in pencil (鉛筆画): dark lines at its edges, light shading, on grey-white paper."""
    grey = _array(flatten(drawing).convert("L"))
    alpha = _array(drawing)[..., 3]
    edges = np.abs(grey - _blur(grey, 3)) * 2.2 + np.abs(alpha - _blur(alpha, 3)) * 1.2
    lines = _blur(edges.clip(0, 1), 1.0)
    shade = (1 - _blur(grey, 2)) * 0.28
    tone = 0.95 - (1.15 * lines + shade).clip(0, 0.85)
    return _image(np.repeat(tone[..., None], 3, 2))


def pixel_art(drawing: Image.Image, ground: tuple[int, int, int] = (255, 255, 255)) -> Image.Image:
    """Return the drawing as pixel art (ドット絵): 32 x 32 cells with hard edges and 7 levels per channel."""
    size = drawing.size[0]
    cells = _array(flatten(drawing, ground).resize((32, 32), Image.BOX))
    return _image(np.round(cells * 6) / 6).resize((size, size), Image.NEAREST)


def monochrome(drawing: Image.Image) -> Image.Image:
    """Return the drawing in black and white (白黒), with a little more contrast, like a photograph."""
    grey = _array(flatten(drawing).convert("L"))
    return _image(np.repeat(((grey - 0.5) * 1.15 + 0.5)[..., None], 3, 2))


def _on(colour: str, paint: Callable[..., Image.Image]) -> Callable[[Image.Image], Image.Image]:
    """Return the filter `paint` with its background fixed to `colour`, a key of COLOURS."""
    return lambda drawing: paint(drawing, COLOURS[colour])


# The filter of each style. "plain" is the drawing on white, "blue" a blue background, "oil+blue" an oil painting on a
# blue background.
STYLES: dict[str, Callable[[Image.Image], Image.Image]] = {
    "plain": flatten,
    "oil": oil,
    "watercolour": watercolour,
    "pencil": pencil,
    "pixel": pixel_art,
    "monochrome": monochrome,
    **{colour: _on(colour, flatten) for colour in COLOURS},
}
PAIRS: dict[str, Callable[[Image.Image], Image.Image]] = {
    f"{style}+{colour}": _on(colour, paint)
    for style, paint in (("oil", oil), ("watercolour", watercolour), ("pixel", pixel_art))
    for colour in COLOURS
}


def render(drawing: Image.Image, style: str) -> Image.Image:
    """Render `drawing` (RGBA) in `style`, a key of STYLES or PAIRS, as RGB of the same size."""
    return (STYLES.get(style) or PAIRS[style])(drawing)
