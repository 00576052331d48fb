"""The colours of grounds and of things, and how a sprite gets another colour."""

import cv2
import numpy as np

COLOURS = {  # of grounds
    "white": (255, 255, 255),
    "blue": (54, 104, 214),
    "red": (206, 44, 48),
    "green": (52, 140, 76),
    "yellow": (250, 210, 60),
    "pink": (246, 160, 190),
    "purple": (132, 76, 180),
    "orange": (244, 140, 44),
    "black": (24, 24, 28),
    "grey": (150, 152, 156),
    "light_blue": (150, 208, 246),
}
# The colours a thing can be given: the tone its middle greys take.
THING_COLOURS = {
    "red": (214, 40, 44),
    "blue": (44, 104, 222),
    "green": (52, 158, 76),
    "yellow": (250, 206, 44),
    "pink": (250, 142, 186),
    "purple": (138, 76, 192),
    "white": (243, 243, 246),
    "black": (46, 46, 54),
}
# The styles in which no ground or place keeps its colour, and the colours that others turn into another.
COLOURLESS = frozenset({"pencil", "monochrome", "sumie", "sepia", "manga", "neon"})
LOST = {"ukiyoe": {"purple"}, "kirie": {"orange"}, "watercolour": {"black"}, "pastel": {"black"}}


def recolour(sprite: np.ndarray, colour: str) -> np.ndarray:
    """The sprite in another colour: its main colour becomes `colour`, lighter and darker parts its tints and shades.

    Eyes, lines and gleams stay; where one hue prevails (a car's body), small parts of other hues stay as well.
    """
    alpha = sprite[..., 3:].astype(np.float32) / 255
    rgb = (sprite[..., :3] / np.maximum(alpha, 1 / 255)).clip(0, 255).astype(np.float32) / 255
    solid = alpha[..., 0] > 0.5
    hsv = cv2.cvtColor(rgb, cv2.COLOR_RGB2HSV)
    light = cv2.cvtColor(rgb, cv2.COLOR_RGB2GRAY)
    value = 0.6 * light + 0.4 * hsv[..., 2]  # saturated reds and blues are less dark than their luminance
    hue, chroma = hsv[..., 0], hsv[..., 1] * hsv[..., 2]
    weight = np.where(solid, chroma, 0)
    bins = np.bincount((hue[solid] / 10).astype(int) % 36, weight[solid], 36)
    smooth = bins + np.roll(bins, 1) + np.roll(bins, -1)
    main = 10 * int(smooth.argmax()) + 5
    away = np.abs((hue - main + 180) % 360 - 180)
    near = solid & (away < 35) & (chroma > 0.25)
    share = near.sum() / max(1, solid.sum())
    keep = np.clip((0.26 - value) / 0.12, 0, 1)  # dark lines and eyes
    if share > 0.3:  # one hue prevails: the others stay
        keep = np.maximum(keep, np.clip((away - 40) / 15, 0, 1) * np.clip(chroma / 0.2, 0, 1))
        keep = np.maximum(keep, np.clip((0.22 - chroma) / 0.12, 0, 1) * 0.75)
        body = near
    else:
        keep = np.maximum(keep, np.clip((value - 0.97) / 0.03, 0, 1) * 0.3)
        body = solid & (keep < 0.5)
    middle = float(np.median(value[body])) if body.any() else 0.5
    target = np.float32(THING_COLOURS[colour]) / 255
    low, high = target * 0.28, 1 - (1 - target) * 0.25
    if colour == "black":
        low, high = target * 0.4, np.float32([0.42, 0.42, 0.46])
    if colour == "white":
        low, high = np.float32([0.55, 0.56, 0.62]), np.float32([1, 1, 1])
    up = np.clip((value - middle) / max(1 - middle, 0.25), 0, 1)[..., None]
    down = np.clip((middle - value) / max(middle, 0.25), 0, 1)[..., None]
    tinted = target + up * (high - target) + down * (low - target)
    keep = keep[..., None]
    result = (keep * rgb + (1 - keep) * tinted) * alpha
    return np.concatenate([(result * 255 + 0.5).astype(np.uint8), sprite[..., 3:]], -1)
