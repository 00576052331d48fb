"""What the things stand in: a place or a colour, the weather, and the style around it all."""

import re

from embedded.scenes.chance import Rng, pick
from embedded.scenes.colours import COLOURLESS
from embedded.scenes.places import PLACES
from embedded.scenes.scene import Scene
from embedded.scenes.words.japanese import fitting, placed_form
from embedded.scenes.words.language import Language, Words

_COLOUR_IN_PLACE = re.compile("青|あお|blue|green")


def place_words(scene: Scene, language: Language) -> list[str] | Words:
    """The words for the scene's place; no 青空 in styles without colour."""
    words = language.places[scene.ground]
    if scene.style in COLOURLESS:
        return [word for word in words if not _COLOUR_IN_PLACE.search(word)]
    return words


def with_ground(words: str, sort: str, scene: Scene, rng: Rng, language: Language, edge: str) -> tuple[str, str]:
    """The words, of `sort`, in the scene's place, weather and colour of the ground, and their new sort."""
    weather = scene.weather
    if scene.ground in PLACES:
        word = pick(rng, place_words(scene, language), first=0.4)
        place = edge + word + edge
        own = language.placed_own.get(scene.ground)
        if weather and rng.random() < 0.75:
            forms = language.with_place[weather]
            form = pick(rng, forms)
            place = (form if form[0] not in word else forms[1]).format(p=place)
            weather = own = None
        if own and sort == "noun" and rng.random() < 0.3:
            form = pick(rng, own)
            if scene.style in COLOURLESS:
                form = form.replace("青空", "空")
        else:
            form = pick(rng, language.placed[sort], first=0.3)
            if language.code == "ja":
                form = placed_form(form, word)
        form = fitting(form, scene.things)
        words, sort = form.format(s=words, p=place), _sort_after(form, sort, language)
    elif weather:  # before the colour: 雨の中の猫、青い背景
        form = pick(rng, language.weathers[weather][sort], first=0.4)
        words, sort, weather = form.format(s=words), "loose", None
    if weather:
        form = pick(rng, language.weathers[weather][sort], first=0.4)
        words, sort = form.format(s=words), _sort_after(form, sort, language)
    if scene.ground not in PLACES and (scene.ground != "white" or (scene.style == "plain" and rng.random() < 0.06)):
        colour = pick(rng, language.colours[scene.ground], first=0.5)
        form = pick(rng, language.coloured[sort], first=0.35)
        if form.startswith("背景が"):  # 背景が青い猫, 背景が緑の猫
            colour = language.colours[scene.ground][0]
        words, sort = form.format(s=words, c=edge + colour + edge), _sort_after(form, sort, language)
    return words, sort


def _sort_after(form: str, sort: str, language: Language) -> str:
    """The sort of what a template has made of a sort."""
    return "nouns" if sort in ("noun", "nouns") and not any(b in form for b in language.breaks) else "loose"


def styled(words: str, sort: str, scene: Scene, rng: Rng, language: Language, edge: str) -> str:
    """The words, of `sort`, with the scene's style, which is not plain."""
    style = language.styles[scene.style]
    form = pick(rng, language.styled[sort], first=0.25)
    if "{w}" in form:
        return form.format(s=words, w=edge + pick(rng, style.words, first=0.5) + edge)
    options = style.of if "{of}" in form else style.by if "{by}" in form else style.drawn
    word = edge + pick(rng, options, first=0.3) + edge
    return form.format(s=words, of=word, by=word, drawn=word)
