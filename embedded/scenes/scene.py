"""What is to be seen: things, how they stand, on which ground, in which weather and style; and what is held out."""

import hashlib
from dataclasses import dataclass
from functools import lru_cache

from embedded.scenes.concepts import Concept
from embedded.scenes.sprites import Drawing

RELATIONS = ("beside", "left", "right", "above", "below", "front")  # where the first thing is, seen from the second
WEATHERS = ("rain", "snow", "fog")


@dataclass(frozen=True)
class Thing:
    """`count` of a concept, as one of its drawings, in a colour of THING_COLOURS or its own."""

    concept: Concept
    drawing: Drawing
    count: int = 1
    colour: str | None = None


@dataclass(frozen=True)
class Scene:
    """A picture before it is drawn. `ground` is one of COLOURS or PLACES; `relation` is there for two things; three
    stand from left to right.
    """

    things: tuple[Thing, ...]
    relation: str | None = None
    ground: str = "white"
    weather: str | None = None
    style: str = "plain"


@lru_cache(1 << 18)
def _one_in_ten(*words: str) -> bool:
    digest = hashlib.md5("|".join(words).encode(), usedforsecurity=False).digest()
    return int.from_bytes(digest[:4], "big") % 10 == 0


def held_out(scene: Scene) -> bool:
    """Whether the scene holds a composition that is never trained on: a concept with a style, with a place or a colour
    of the ground, or with another concept; one in ten of each, by md5.
    """
    ids = [thing.concept.id for thing in scene.things]
    settings = [s for s in (scene.style, scene.ground) if s not in ("plain", "white")]
    if any(_one_in_ten(i, setting) for i in ids for setting in settings):
        return True
    return any(_one_in_ten(*sorted((a, b))) for k, a in enumerate(ids) for b in ids[k + 1 :])
