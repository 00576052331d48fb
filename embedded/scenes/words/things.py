"""The things of a scene and how they stand: 犬と猫, 犬の右の猫, a dog, a cat and a bird."""

from embedded.scenes.chance import Rng, pick
from embedded.scenes.places import PLACES
from embedded.scenes.scene import Scene
from embedded.scenes.words.japanese import fitting
from embedded.scenes.words.language import Language
from embedded.scenes.words.names import thing_en, thing_ja


def things_of(scene: Scene, rng: Rng, language: Language, less: bool, edge: str) -> tuple[str, str]:
    """The things and how they stand, and of which sort that is; `less` leaves out how."""
    things = scene.things
    if language.code == "ja":
        named = [thing_ja(thing, scene, rng, edge) for thing in things]
    else:
        chance = rng.random()
        article = "a" if chance < (0.8 if scene.relation else 0.66) else "" if chance < 0.97 else "the"
        named = [thing_en(thing, scene, rng, edge, article) for thing in things]
    if len(things) == 1:
        words, sort = named[0]
        if sort == "noun" and things[0].drawing.face and scene.ground not in PLACES and rng.random() < 0.3:
            return pick(rng, language.portraits, first=0.3).format(n=words), "nouns"
        return words, sort
    a, b = named[0][0], named[1][0]
    sort = "bare" if any(sort == "bare" for _, sort in named) else "nouns"
    if len(things) == 3:
        form = pick(rng, language.three, first=0.3)
        return form.format(a=a, b=b, c=named[2][0]), sort if _joined(form) else "loose"
    if scene.relation == "beside" or scene.relation is None:
        form = pick(rng, language.two, first=0.4)
        return form.format(a=a, b=b), _pair_sort(form, sort)
    if less:
        a, b = (b, a) if scene.relation == "right" else (a, b)  # from left to right
        return language.two[0].format(a=a, b=b), sort
    clausal = any(sort == "clause" for _, sort in named)  # never the first of two nouns joined by の
    if rng.random() < (0.5 if language.code == "ja" else 0.85) and not clausal:
        form = fitting(pick(rng, language.relations[scene.relation], first=0.35), things[:1], things[1])
        return form.format(a=a, b=b), "nouns" if language.code == "en" and sort == "nouns" else "loose"
    form = fitting(pick(rng, language.relations_clause[scene.relation], first=0.35), things[:1])
    return form.format(a=a, b=b), "loose"


def _pair_sort(form: str, sort: str) -> str:
    """The sort of two things in a template, each of which is of `sort`."""
    if form.startswith("並んだ") or "が" in form:
        return "clause"
    return sort if _joined(form) else "loose"


def _joined(form: str) -> bool:
    """Whether things are joined by words alone (犬と猫, a dog, a cat and a bird)."""
    return "、" not in form and "{a} {b}" not in form and ("," not in form or "and" in form)
