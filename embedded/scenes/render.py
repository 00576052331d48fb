"""Draws a scene: puts things on their ground, adds weather, and hands the picture to the style."""

import cv2
import numpy as np

from embedded.scenes import places, styles, weather
from embedded.scenes.canvas import SIZE, Canvas, blend, blur, ellipse, solid, vary
from embedded.scenes.chance import Rng, pick
from embedded.scenes.colours import COLOURS, recolour
from embedded.scenes.layout import Spot, lay_out
from embedded.scenes.places.backdrop import Backdrop
from embedded.scenes.scene import Scene, Thing
from embedded.scenes.sprites import Assets
from embedded.scenes.traits import may_flip

SIDES = range(160, 416 + 1, 8)  # that a picture may have, in pixels
_AMBIENT = {  # the light a place throws on its things
    "night_sky": (0.84, 0.86, 0.98),
    "night_city": (0.9, 0.87, 0.98),
    "space": (0.94, 0.93, 1.0),
    "sunset": (1.0, 0.92, 0.85),
    "festival": (1.0, 0.94, 0.88),
    "forest": (0.96, 1.0, 0.94),
}
_WEATHER_FIRST = ("pixel", "monochrome", "sepia")  # styles that take in what falls; in others it falls over them


def render(scene: Scene, rng: Rng, assets: Assets, size: tuple[int, int] = (SIZE, SIZE)) -> np.ndarray:
    """The picture: uint8, height x width x 3, RGB. The same scene, size and state of `rng` give the same picture.

    `size` is width and height in pixels. Raises ValueError if a side is not one of SIDES.
    """
    return render_with_spots(scene, rng, assets, size)[0]


def render_with_spots(
    scene: Scene, rng: Rng, assets: Assets, size: tuple[int, int] = (SIZE, SIZE)
) -> tuple[np.ndarray, list[Spot]]:
    """The picture as `render` draws it, and where its things are."""
    if not set(size) <= set(SIDES):
        raise ValueError(f"size is {size[0]} x {size[1]}; sides go from {SIDES[0]} to {SIDES[-1]} in steps of 8 pixels")
    sprites = [_sprite(thing, rng, assets) for thing in scene.things]
    placed = scene.ground in places.PLACES
    backdrop = places.draw(scene.ground, rng, size) if placed else _plain_ground(scene, sprites, size, rng)
    image, label = backdrop.image, np.zeros(backdrop.image.shape[:2], np.uint8)
    light = np.float32(_AMBIENT.get(scene.ground, (1, 1, 1)))
    spots = lay_out(scene, backdrop, sprites, placed, rng)
    for spot in spots:
        image = _paste(image, label, sprites[spot.label - 1], spot, light, backdrop.shadow)
    if backdrop.front:
        colour, mask = backdrop.front
        image = solid(blend(image, colour, mask))
        label[mask > 0.5] = 0
    return np.ascontiguousarray(_finished(image, label, scene, rng)), spots


def _finished(image: np.ndarray, label: np.ndarray, scene: Scene, rng: Rng) -> np.ndarray:
    """The picture with the scene's weather, in its style."""
    if not scene.weather:
        return styles.apply(scene.style, image, label, rng)
    image = weather.air(image, scene.weather, rng)
    if scene.style in _WEATHER_FIRST:
        return styles.apply(scene.style, weather.fall(image, scene.weather, scene.style, rng), label, rng)
    return weather.fall(styles.apply(scene.style, image, label, rng), scene.weather, scene.style, rng)


def _plain_ground(scene: Scene, sprites: list[np.ndarray], size: tuple[int, int], rng: Rng) -> Backdrop:
    """One colour: the scene's, or, on white, one that the style likes and the things stand out from."""
    tone = COLOURS[scene.ground]
    if scene.ground == "white" and (free := styles.GROUNDS.get(scene.style)):
        means = [sprite[..., :3].sum((0, 1)) / max(1.0, sprite[..., 3].sum() / 255) for sprite in sprites]
        far = [min(float(np.linalg.norm(tone - mean)) for mean in means) for tone in np.float32(free)]
        allowed = [tone for tone, distance in zip(free, far, strict=True) if distance > 80]
        tone = vary(rng, pick(rng, allowed or [free[int(np.argmax(far))]]), 8)
    elif scene.ground != "white":
        tone = vary(rng, tone, 8)
    return Backdrop(solid(Canvas(*size).plain(tone)))


def _sprite(thing: Thing, rng: Rng, assets: Assets) -> np.ndarray:
    sprite = assets.sprite(thing.drawing.key)
    if may_flip(thing.concept) and rng.random() < 0.5:
        sprite = sprite[:, ::-1]
    return recolour(sprite, thing.colour) if thing.colour else sprite


def _paste(image: np.ndarray, label: np.ndarray, sprite: np.ndarray, spot: Spot, light, shadow: float) -> np.ndarray:
    """The picture with the thing on its spot, and its shadow. Writes the thing into `label`."""
    width, height = max(2, round(spot.width)), max(2, round(spot.height))
    x, y = round(spot.x - width / 2), round(spot.bottom - height)
    image = image.copy()
    if spot.standing and shadow:
        shade = np.zeros(label.shape, np.uint8)
        ellipse(shade, spot.x, spot.bottom - 1, width * 0.42, max(3, width * 0.055), 255)
        dark = blur(shade, 2.2).astype(np.float32) / 255 * shadow * 1.6
        image = solid(blend(image, np.float32(image) * 0.25, dark))
    small = cv2.resize(sprite, (width, height), interpolation=cv2.INTER_AREA).astype(np.float32)
    x0, y0, x1, y1 = max(0, x), max(0, y), min(label.shape[1], x + width), min(label.shape[0], y + height)
    small = small[y0 - y : y1 - y, x0 - x : x1 - x]
    window = image[y0:y1, x0:x1]
    window[:] = np.clip(small[..., :3] * light + window * (1 - small[..., 3:] / 255) + 0.5, 0, 255)
    label[y0:y1, x0:x1][small[..., 3] > 127] = spot.label
    return image
