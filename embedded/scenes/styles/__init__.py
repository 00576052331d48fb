"""The styles: each turns a whole scene into a painting, a print, a window ... `STYLES` names them, `apply` does it.

A style is given the canvas, the picture (uint8, RGB), `label` (uint8: 0 the ground, 1, 2 ... the things) and a random
generator; the same four give the same result.
"""

from collections.abc import Callable

import numpy as np

from embedded.scenes.canvas import Canvas
from embedded.scenes.chance import Rng
from embedded.scenes.styles import crafts, drawings, paintings, photographs, screens

STYLES: dict[str, Callable[[Canvas, np.ndarray, np.ndarray, Rng], np.ndarray]] = {
    "plain": lambda canvas, image, label, rng: image,
    "oil": paintings.oil,
    "watercolour": paintings.watercolour,
    "pencil": drawings.pencil,
    "pixel": screens.pixel,
    "monochrome": photographs.monochrome,
    "ukiyoe": crafts.ukiyoe,
    "sumie": drawings.sumie,
    "kirie": crafts.kirie,
    "pastel": paintings.pastel,
    "crayon": paintings.crayon,
    "sepia": photographs.sepia,
    "neon": screens.neon,
    "mosaic": crafts.mosaic,
    "embroidery": crafts.embroidery,
    "manga": drawings.manga,
    "chalk": drawings.chalk,
}
# The grounds that a style likes where a scene asks for none, light ones and dark ones, as captions say neither.
GROUNDS: dict[str, tuple[tuple[int, int, int], ...]] = {
    "oil": ((94, 62, 38), (120, 92, 62), (70, 76, 72), (150, 132, 98), (74, 58, 70), (176, 160, 130)),
    "ukiyoe": ((240, 228, 198), (232, 214, 176), (176, 196, 200)),
    "kirie": ((250, 244, 230), (246, 178, 56), (200, 42, 48), (168, 210, 226), (250, 222, 130)),
    "mosaic": ((250, 222, 130), (140, 190, 240), (250, 190, 170), (180, 220, 170), (206, 180, 240)),
    "embroidery": ((255, 255, 255),),
    "sepia": ((250, 250, 250), (228, 228, 228), (84, 84, 84)),
    "monochrome": ((255, 255, 255), (255, 255, 255), (214, 214, 214), (70, 70, 70)),
    "neon": ((30, 24, 60),),
}


def apply(style: str, image: np.ndarray, label: np.ndarray, rng: Rng) -> np.ndarray:
    """The picture in a style of STYLES: uint8, RGB. Raises KeyError for another name."""
    return STYLES[style](Canvas.of(image), image, label, rng)
