"""A caption of a scene, one of many."""

from embedded.scenes.chance import Rng, pick
from embedded.scenes.colours import COLOURS
from embedded.scenes.places import OUTDOORS
from embedded.scenes.scene import Scene
from embedded.scenes.words.japanese import full_width
from embedded.scenes.words.language import LANGUAGES
from embedded.scenes.words.settings import styled, with_ground
from embedded.scenes.words.things import things_of


def caption(scene: Scene, rng: Rng, language: str = "ja", edge: str = "") -> str:
    """One of many captions of the scene in "ja" or "en".

    `edge` (one character) is put around names, colours, places and styles: what a tokenizer's pieces must not cross.
    """
    words_of = LANGUAGES[language]
    silent = _left_out(scene, rng) if rng.random() < 0.1 else ""
    words, sort = things_of(scene, rng, words_of, silent == "relation", edge)
    style_first = language == "ja" and scene.style != "plain" and silent != "style" and rng.random() < 0.1
    if style_first:
        words, sort = styled(words, sort, scene, rng, words_of, edge), "loose"
    if silent != "ground":
        words, sort = with_ground(words, sort, scene, rng, words_of, edge)
    if scene.style == "plain":
        chance = rng.random()
        if chance < 0.14 and sort in ("noun", "nouns") and (scene.ground in COLOURS or scene.ground in OUTDOORS):
            words = pick(rng, words_of.subjects, first=0.3).format(n=words)
        elif chance > 0.95 and len(scene.things) == 1:
            word = edge + pick(rng, words_of.sets[scene.things[0].drawing.icon_set]) + edge
            words = pick(rng, words_of.styled["loose"], first=0.3).format(s=words, w=word)
    elif not style_first and silent != "style":
        words = styled(words, sort, scene, rng, words_of, edge)
    if language == "ja" and rng.random() < 0.05:
        words = full_width(words)
    return words.replace(f" a {edge}orange", f" an {edge}orange")


def _left_out(scene: Scene, rng: Rng) -> str:
    """What a caption says nothing about: "style", "ground" (with its weather), "relation"; "" if there is none."""
    parts = ["style"] * (scene.style != "plain") + ["ground"] * (scene.ground != "white")
    parts += ["relation"] * (scene.relation not in (None, "beside"))
    return parts[int(rng.random() * len(parts))] if parts else ""
