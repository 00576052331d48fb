"""What one thing is called: its name with its colour and number."""

import re

from embedded.scenes.chance import Rng, pick
from embedded.scenes.colours import COLOURLESS
from embedded.scenes.places import PLACES
from embedded.scenes.scene import Scene, Thing
from embedded.scenes.traits import lifeless
from embedded.scenes.words.english import NUMBERS, article_of, counted_en
from embedded.scenes.words.japanese import CLAUSAL, PARTICLE, counted_ja, fitting, kana_swapped
from embedded.scenes.words.language import ENGLISH, JAPANESE, Words

_COLOUR_IN_NAME = re.compile("[赤青黄緑白黒紫桃茶金銀]|ピンク|ブラック|ホワイト|silver|gold")
_COUNTED = ("{k}の{n}", "{k}の{n}", "{n}{k}", "{n}が{k}", "{n}が{k}{v}")  # with が: clauses


def names_of(thing: Thing, scene: Scene, language: str) -> list[str] | Words:
    """The names of the thing that fit the scene: such as only stand alone fit one thing as it is, out of places; before
    a colour goes none that holds one itself, nor in styles without colour.
    """
    concept = thing.concept
    names = concept.ja if language == "ja" else concept.en
    if concept.alone and (len(scene.things) > 1 or thing.count > 1 or thing.colour or scene.ground in PLACES):
        names = [name for name in names if name not in concept.alone] or names
    if thing.count > 1 and concept.bare and language == "en":
        names = [name for name in names if name not in concept.bare] or names
    if thing.colour or scene.style in COLOURLESS:
        names = [name for name in names if not _COLOUR_IN_NAME.search(name)] or names
    if thing.colour and language == "ja":
        names = [name for name in names if not PARTICLE.search(name)] or names
    return names


def thing_ja(thing: Thing, scene: Scene, rng: Rng, edge: str) -> tuple[str, str]:
    """A thing's name with its colour and number, and of which sort that is."""
    name = pick(rng, names_of(thing, scene, "ja"), first=0.4)
    alone = name in thing.concept.alone
    plain = not PARTICLE.search(name)
    sort = "clause" if CLAUSAL.search(name) else "nouns"
    if rng.random() < 0.08:
        name = kana_swapped(name)
    name = edge + name + edge
    if alone:
        return name, "loose"
    if thing.colour:
        name = edge + pick(rng, JAPANESE.thing_colours[thing.colour], first=0.4) + edge + name
    adjectives = JAPANESE.adjectives.get(thing.concept.kind)
    if adjectives and plain and not lifeless(thing.concept) and rng.random() < 0.06:
        name = edge + pick(rng, adjectives) + edge + name
    if thing.count > 1:
        form = pick(rng, _COUNTED)
        counter = thing.concept.counter
        if counter == "個" and rng.random() < 0.3:  # りんご三つ
            counter = "つ"
        form = fitting(form, (thing,))
        return form.format(k=counted_ja(thing.count, counter, rng), n=name), "clause" if "が" in form else sort
    if thing.concept.counter not in ("-", "") and rng.random() < 0.025:
        return f"{counted_ja(1, thing.concept.counter, rng)}の{name}", sort
    return name, "noun" if sort == "nouns" else sort


def thing_en(thing: Thing, scene: Scene, rng: Rng, edge: str, article: str) -> tuple[str, str]:
    """The same in English; `article` is "a", "the" or "", for all things of a caption alike."""
    name = pick(rng, names_of(thing, scene, "en"), first=0.4)
    if name in thing.concept.alone:
        return edge + name + edge, "loose"
    before = f"{edge}{thing.colour}{edge} " if thing.colour else ""
    adjectives = ENGLISH.adjectives.get(thing.concept.kind)
    if adjectives and not lifeless(thing.concept) and rng.random() < 0.06:
        before = f"{pick(rng, adjectives)} {before}"
    if thing.count > 1:
        number = pick(rng, NUMBERS[thing.count], first=0.5)
        return counted_en(number, before, name, thing.concept, edge), "nouns"
    words = before + edge + name + edge
    if name in thing.concept.bare:
        return words, "noun"
    if not article:
        return words, "bare"
    if article == "the" or "the " + name in thing.concept.bare:
        return "the " + words, "noun"
    return article_of(name, before.lstrip(edge) if edge else before) + words, "noun"
