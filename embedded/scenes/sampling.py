"""Random scenes: which concepts, how they stand, on which ground, in which weather and style."""

from collections.abc import Sequence
from functools import lru_cache

from embedded.scenes import shares
from embedded.scenes.chance import Rng, Wheel, pick
from embedded.scenes.colours import COLOURLESS, COLOURS, LOST, THING_COLOURS
from embedded.scenes.concepts import Concept
from embedded.scenes.places import OUTDOORS, PLACES
from embedded.scenes.scene import RELATIONS, WEATHERS, Scene, Thing, held_out
from embedded.scenes.sprites import Assets, Drawing
from embedded.scenes.traits import AIR, FLAT, colourable, told_by_colour, vague

_SORTS, _STYLES = Wheel(shares.SORTS), Wheel(shares.STYLE_WEIGHTS)


class _Wheels:
    """How often each concept is drawn in each sort of scene."""

    def __init__(self, assets: Assets):
        concepts = assets.concepts.values()
        cards = {c.id for c in concepts if all(assets.is_card(d.key) for d in assets.drawings[c.id])}
        asked = {c: shares.FIRST_WEIGHT if place < shares.FIRST else 1.0 for place, c in enumerate(concepts)}
        asked = {c: weight * (shares.VAGUE_WEIGHT if vague(c) else 1) for c, weight in asked.items()}
        kinds = {k: max(1.0, weight) for k, weight in shares.KIND_WEIGHTS.items()} | shares.COMPANY_WEIGHTS
        card = shares.CARD_WEIGHT
        company = {c: asked[c] * kinds.get(c.kind, 1.0) * (card if c.id in cards else 1) for c in concepts}
        coloured = [c for c in concepts if c.id not in cards and colourable(c)]
        together = Wheel(company)
        self.by_sort = {
            "one": Wheel({c: asked[c] * shares.KIND_WEIGHTS.get(c.kind, 1.0) for c in concepts}),
            "place": together,
            "coloured": Wheel(dict.fromkeys(coloured, 1)),
            "counted": Wheel({c: w for c, w in company.items() if c.counter not in ("-", "")}),
            "two": together,
            "two_coloured": Wheel({c: company[c] for c in coloured}),
            "three": together,
        }


_wheels = lru_cache(4)(_Wheels)  # by the assets


def sample_scene(rng: Rng, assets: Assets, split: str = "train") -> Scene:
    """A random scene; of those `held_out` for split "held_out", of the others for "train".

    Raises ValueError for another split.
    """
    if split not in ("train", "held_out"):
        raise ValueError(f'split is "train" or "held_out", not {split!r}')
    sort = _SORTS.spin(rng)
    while True:
        scene = _sample(rng, assets, sort)
        if held_out(scene) == (split == "held_out"):
            return scene
        if split == "held_out":
            sort = _SORTS.spin(rng)


def _sample(rng: Rng, assets: Assets, sort: str) -> Scene:
    style = _STYLES.spin(rng)
    concepts = _concepts(rng, _wheels(assets), sort)
    relation = None
    if len(concepts) == 2:
        relation = "beside" if rng.random() < 0.5 else pick(rng, RELATIONS[1:])
    in_place = rng.random() < shares.IN_PLACE[sort]
    if style in COLOURLESS and any(told_by_colour(c) for c in concepts):
        style = "plain"
    flat = any(c.kind in FLAT for c in concepts)
    if in_place and sort != "place" and flat and rng.random() < 0.8:
        in_place = False
    ground = _place(rng, concepts) if in_place else _colour(rng, style)
    colours: list[str | None] = [None] * len(concepts)
    if sort in shares.COLOURED:
        style = "plain" if style in COLOURLESS else style
        colours = _thing_colours(rng, len(concepts), ground, style)
        if "white" in colours and ground == "white":
            ground = pick(rng, [c for c in ("light_blue", "blue", "green", "grey", "pink") if c not in colours])
    count = pick(rng, (2, 2, 3, 3, 4)) if sort == "counted" else 1
    things = tuple(
        Thing(c, _drawing(rng, assets, c, in_place), count, k) for c, k in zip(concepts, colours, strict=True)
    )
    return Scene(things, relation, ground, _weather(rng, ground, style), style)


def _concepts(rng: Rng, wheels: _Wheels, sort: str) -> list[Concept]:
    """Different concepts, as many as the sort of scene has."""
    wheel = wheels.by_sort[sort]
    concepts = [wheel.spin(rng) for _ in range(shares.THINGS.get(sort, 1))]
    while len({c.id for c in concepts}) < len(concepts):
        concepts = [wheel.spin(rng) for _ in concepts]
    return concepts


def _thing_colours(rng: Rng, count: int, ground: str, style: str) -> list[str | None]:
    """Different colours for so many things, which the style keeps and which stand out from the ground. One of two
    things may keep its own.
    """
    free = [c for c in THING_COLOURS if c != ground and c not in LOST.get(style, ())]
    colours: list[str | None] = [pick(rng, free)]
    while len(colours) < count:
        colours.append(pick(rng, [c for c in free if c not in colours]))
    if count > 1 and rng.random() < 0.3:
        colours[pick(rng, range(count))] = None
    return colours


def _place(rng: Rng, concepts: Sequence[Concept]) -> str:
    """A place for the things, other than what they show themselves (no 山の山)."""
    shown = {word for c in concepts for word in c.id.split("_")}
    while True:
        place = _any_place(rng, concepts)
        if not shown & set(place.rstrip("s").split("_")):
            return place


def _any_place(rng: Rng, concepts: Sequence[Concept]) -> str:
    kind = pick(rng, concepts).kind
    fitting = shares.FITTING.get(kind)
    if any(c.kind in AIR for c in concepts):
        return pick(rng, fitting) if kind == "sky" else pick(rng, tuple(sorted(OUTDOORS)))
    return pick(rng, fitting) if fitting and rng.random() < 0.4 else pick(rng, tuple(PLACES))


def _colour(rng: Rng, style: str) -> str:
    """A plain ground: white half of the time, more often in the styles that are drawn on paper, else one of the colours
    that the style keeps.
    """
    if style in COLOURLESS or style == "chalk":
        return "black" if style == "neon" and rng.random() < 0.3 else "white"
    if rng.random() < (0.55 if style == "plain" else 0.65):
        return "white"
    return pick(rng, [c for c in COLOURS if c != "white" and c not in LOST.get(style, ())])


def _drawing(rng: Rng, assets: Assets, concept: Concept, in_place: bool) -> Drawing:
    drawings = assets.drawings[concept.id]
    whole = [d for d in drawings if not d.face]
    return pick(rng, whole if in_place and whole and rng.random() < 0.75 else drawings)


def _weather(rng: Rng, ground: str, style: str) -> str | None:
    if style not in ("plain", "oil", "watercolour", "pastel", "monochrome", "sepia", "ukiyoe", "pixel", "pencil"):
        return None
    if ground in OUTDOORS and ground not in ("sky", "sunset") and rng.random() < 0.17:
        weather = pick(rng, ("snow", "fog") if ground == "snowfield" else WEATHERS)
        return "snow" if weather == "fog" and style == "ukiyoe" else weather
    if ground in ("blue", "grey", "black", "light_blue", "purple") and rng.random() < 0.08:
        return pick(rng, ("rain", "snow"))
    return None
