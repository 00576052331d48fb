"""Where the things of a scene go.

Lengths here are shares of the picture's shorter side: 256 of them, so a picture is at least 256 wide and high, and a
thing that fits the square one fits all.
"""

from collections.abc import Sequence
from dataclasses import dataclass, replace

import numpy as np

from embedded.scenes.canvas import SIZE
from embedded.scenes.chance import Rng, between
from embedded.scenes.places.backdrop import Backdrop
from embedded.scenes.scene import Scene, Thing
from embedded.scenes.traits import hovers

MARGIN = 5  # that things keep to the border
# How large things are beside each other, a little.
_SIZES = {"building": 1.16, "vehicle": 1.08, "place": 1.14, "plant": 1.06, "insect": 0.86, "fruit": 0.9, "food": 0.92}


@dataclass(frozen=True)
class Spot:
    """A thing's place in the picture, in pixels: its middle column, its bottom row, its size. `label` is the number of
    the thing in the scene, from 1; `standing` says that it casts a shadow on the ground.
    """

    thing: Thing
    x: float
    bottom: float
    width: float
    height: float
    label: int
    standing: bool


@dataclass(frozen=True)
class _Room:
    """What there is for the things: width and height, and the rows of the floor if they stand on one."""

    width: float
    height: float
    placed: bool
    floor: tuple[float, float] | None

    @property
    def middle(self) -> tuple[float, float]:
        return self.width / 2, self.height / 2

    @property
    def wide(self) -> float:
        """The width, as a share of the shorter side."""
        return self.width / SIZE

    @property
    def tall(self) -> float:
        """The height, as a share of the shorter side."""
        return self.height / SIZE


def lay_out(scene: Scene, backdrop: Backdrop, sprites: Sequence[np.ndarray], placed: bool, rng: Rng) -> list[Spot]:
    """Where everything goes, in the order it is drawn. `placed` says that the ground is a place."""
    height, width = backdrop.image.shape[:2]
    unit = min(width, height) / SIZE  # in pixels
    floor = backdrop.floor and (backdrop.floor[0] / unit, backdrop.floor[1] / unit)
    room = _Room(width / unit, height / unit, placed, floor)
    spots = []
    for spot in _arrange(scene, room, sprites, rng):  # nothing leaves the picture
        x = float(np.clip(spot.x, MARGIN + spot.width / 2, room.width - MARGIN - spot.width / 2))
        bottom = float(np.clip(spot.bottom, MARGIN + spot.height, room.height - MARGIN))
        size = spot.width * unit, spot.height * unit
        spots.append(replace(spot, x=x * unit, bottom=bottom * unit, width=size[0], height=size[1]))
    return spots


def _arrange(scene: Scene, room: _Room, sprites: Sequence[np.ndarray], rng: Rng) -> list[Spot]:
    things, relation = scene.things, scene.relation
    if len(things) == 1:
        one = things[0]
        return _many(one, room, sprites[0], rng) if one.count > 1 else [_alone(one, room, sprites[0], rng)]
    if relation in ("above", "below"):
        return _stacked(things, relation, room, sprites, rng)
    if relation == "front":
        return _overlapping(things, room, sprites, rng)
    return _row(things, relation, room, sprites, rng)


def _extent(sprite: np.ndarray, side: float) -> tuple[float, float]:
    """Width and height of a sprite whose longer side is `side`."""
    height, width = sprite.shape[:2]
    return side * width / max(height, width), side * height / max(height, width)


def _spot(thing, sprite, x: float, bottom: float, side: float, label: int = 1, standing: bool = True) -> Spot:
    return Spot(thing, x, bottom, *_extent(sprite, side), label, standing)


def _alone(thing: Thing, room: _Room, sprite: np.ndarray, rng: Rng) -> Spot:
    x, y = room.middle
    if not room.placed:
        # Nearly in the middle and nearly as large as it fits: every bit of freedom here costs training.
        side = between(rng, 196, 228)
        width, height = _extent(sprite, side)
        free = max(0.0, room.height - 2 * MARGIN - height)
        bottom = y + height / 2 + (rng.random() - 0.5) * free * 0.2
        x += (rng.random() - 0.5) * (room.width - 2 * MARGIN - width) * 0.2
        return _spot(thing, sprite, x, bottom, side, standing=False)
    side = between(rng, 106, 162) * _SIZES.get(thing.concept.kind, 1.0)
    x += (rng.random() - 0.5) * 96 * room.wide
    if room.floor is None or hovers(thing.concept):
        bottom = between(rng, 0.36, 0.58) * room.height + _extent(sprite, side)[1] / 2
        return _spot(thing, sprite, x, bottom, side, standing=False)
    return _spot(thing, sprite, x, between(rng, *room.floor), side)


def _many(thing: Thing, room: _Room, sprite: np.ndarray, rng: Rng) -> list[Spot]:
    """The same thing two, three or four times, in a row or in corners."""
    count, (x, y) = thing.count, room.middle
    standing = room.floor is not None and not hovers(thing.concept)
    if standing or (rng.random() < 0.35 and count < 4):
        side = {2: 108, 3: 78, 4: 60}[count] * between(rng, 0.9, 1.02) * min(room.wide, 1.5)
        pitch = min(room.width / count, side + 18)
        left = x - pitch * (count - 1) / 2 + (rng.random() - 0.5) * (room.width - pitch * count) * 0.7
        floor = between(rng, *room.floor) if standing else y + side / 2 + between(rng, -30, 30)
        jitter = 5 if standing else 10
        spots = []
        for i in range(count):
            bottom = floor + between(rng, -jitter, jitter)
            size = side * between(rng, 0.95, 1.03)
            spots.append(_spot(thing, sprite, left + i * pitch, bottom, size, standing=standing))
        return sorted(spots, key=lambda spot: spot.bottom)
    side = {2: 112, 3: 104, 4: 100}[count] * between(rng, 0.86, 1.04)
    corners = {
        2: [(-0.5, -0.42), (0.5, 0.42)],
        3: [(0, -0.5), (-0.5, 0.5), (0.5, 0.5)],
        4: [(-0.5, -0.5), (0.5, -0.5), (-0.5, 0.5), (0.5, 0.5)],
    }[count]
    turn = -1 if rng.random() < 0.5 else 1
    height = _extent(sprite, side)[1]
    spots = []
    for right, down in corners:
        column = x + turn * right * 120 * room.wide + between(rng, -5, 5)
        bottom = y + down * 120 * room.tall + height / 2 + between(rng, -5, 5)
        spots.append(_spot(thing, sprite, column, bottom, side * between(rng, 0.96, 1.04), standing=False))
    return spots


def _row(things: Sequence[Thing], relation: str | None, room: _Room, sprites, rng: Rng) -> list[Spot]:
    """Side by side."""
    order = [1, 0] if relation == "right" else list(range(len(things)))
    each = room.width / len(things)
    floor = between(rng, *room.floor) if room.floor else room.height / 2 + between(rng, -16, 16)
    spots = []
    for k, i in enumerate(order):
        thing = things[i]
        side = min(each, 170) * between(rng, 0.76, 0.92) * min(1.04, _SIZES.get(thing.concept.kind, 1.0))
        x = each * (k + 0.5) + between(rng, -0.03, 0.03) * each
        height = _extent(sprites[i], side)[1]
        standing = room.floor is not None and not hovers(thing.concept)
        if standing:
            bottom = floor + between(rng, -4, 4)
        elif room.floor:
            bottom = between(rng, 26, 90) * room.tall + height
        else:
            bottom = floor + height / 2 + between(rng, -14, 14)
        spots.append(_spot(thing, sprites[i], x, bottom, side, i + 1, standing))
    return spots


def _stacked(things: Sequence[Thing], relation: str, room: _Room, sprites, rng: Rng) -> list[Spot]:
    """One above the other, on it if it does not hover."""
    upper, lower = (0, 1) if relation == "above" else (1, 0)
    x, y = room.middle
    bottom = between(rng, *room.floor) if room.floor else room.height - between(rng, 8, 20)
    sides = [between(rng, low, high) * min(room.tall, 1.5) for low, high in ((108, 126), (92, 112))]
    heights = [_extent(sprites[i], side)[1] for i, side in zip((lower, upper), sides, strict=True)]
    shrink = min(1.0, (bottom - 8) / sum(heights))
    (low_side, high_side), (low, high) = ([value * shrink for value in values] for values in (sides, heights))
    if not room.floor:
        bottom = y + (low + high) / 2 + between(rng, -6, 6)
    x += between(rng, -30, 30)
    gap = between(rng, 6, 18) if hovers(things[upper].concept) else -0.05 * low
    gap = min(gap, bottom - low - high - 6)
    top = x + between(rng, -10, 10), bottom - low - gap
    return [
        _spot(things[lower], sprites[lower], x, bottom, low_side, lower + 1, room.floor is not None),
        _spot(things[upper], sprites[upper], *top, high_side, upper + 1, False),
    ]


def _overlapping(things: Sequence[Thing], room: _Room, sprites, rng: Rng) -> list[Spot]:
    """The first thing before the second: lower, larger for its kind, covering a part of it."""
    standing = room.floor is not None
    x, y = room.middle
    near = (min(room.floor[1] + 4, room.height - 8) if standing else y + 128 - between(rng, 10, 22)) + between(
        rng, -2, 2
    )
    far = (room.floor[0] - 8 if standing else near - between(rng, 40, 60)) + between(rng, -3, 3)
    near_side, far_side = between(rng, 112, 132), between(rng, 128, 156)
    side = -1 if rng.random() < 0.5 else 1
    shift = between(rng, 26, 44)
    if _extent(sprites[1], far_side)[1] < 70:  # flat things would vanish behind
        far -= 34 if standing else 24
    return [
        _spot(things[1], sprites[1], x - side * shift, far, far_side, 2, standing),
        _spot(things[0], sprites[0], x + side * shift, near, near_side, 1, standing),
    ]
