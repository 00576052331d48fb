"""Places, drawn anew each time: skies, landscapes, rooms. `PLACES` names them; `draw` paints one."""

from collections.abc import Callable

import cv2
import numpy as np

from embedded.scenes.canvas import SIZE, Canvas
from embedded.scenes.chance import Rng
from embedded.scenes.places import fields, hills, rooms, skies, towns, waters
from embedded.scenes.places.backdrop import Backdrop

PLACES: dict[str, Callable[[Canvas, Rng], Backdrop]] = {
    "sky": skies.blue_sky,
    "night_sky": skies.night_sky,
    "sunset": skies.sunset,
    "sea": waters.sea,
    "beach": waters.beach,
    "meadow": fields.meadow,
    "forest": hills.forest,
    "snowfield": hills.snowfield,
    "mountains": hills.mountains,
    "city": towns.city,
    "night_city": towns.night_city,
    "tatami_room": rooms.tatami_room,
    "space": skies.space,
    "flower_field": fields.flower_field,
    "cherry_avenue": hills.cherry_avenue,
    "paddy": fields.paddy,
    "festival": towns.festival,
    "desert": fields.desert,
    "underwater": waters.underwater,
    "room": rooms.room,
}
OUTDOORS = frozenset(PLACES) - {"tatami_room", "room", "space", "underwater"}  # where there is weather


def draw(place: str, rng: Rng, size: tuple[int, int] = (SIZE, SIZE)) -> Backdrop:
    """A place of PLACES, `size` (width, height) in pixels, mirrored half of the time.

    It is painted SIZE high, with as much to the left and right as the size asks for, and then scaled.
    """
    width, height = size
    backdrop = PLACES[place](Canvas(min(2 * SIZE, round(SIZE * width / height))), rng)
    if rng.random() >= 0.5:
        backdrop = backdrop.changed(lambda layer: np.ascontiguousarray(layer[:, ::-1]))
    if size == (SIZE, SIZE):
        return backdrop
    way = cv2.INTER_AREA if height < SIZE else cv2.INTER_CUBIC
    return backdrop.changed(lambda layer: cv2.resize(layer, size, interpolation=way), height / SIZE)
