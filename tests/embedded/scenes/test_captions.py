"""Captions and prompts: they say what the picture shows, in both languages, and no more."""

import re
import unicodedata

import numpy as np
import pytest

from embedded.scenes import COLOURS, PLACES, STYLES, THING_COLOURS, Scene, Thing, caption, prompt_for, sample_scene
from embedded.scenes.scene import RELATIONS, WEATHERS
from embedded.scenes.words.english import plural
from embedded.scenes.words.japanese import kana_swapped
from embedded.scenes.words.language import LANGUAGES

EDGE = "|"  # around what a caption names
# What else tells of the picture, outside the marked words: a pattern in each language, and when it is true.
TELLING = [
    ({"ja": "雨", "en": r"\brain"}, lambda scene: scene.weather == "rain"),
    ({"ja": "霧", "en": r"\bfog|\bmist"}, lambda scene: scene.weather == "fog"),
    ({"ja": "雪|冬", "en": r"\bsnow"}, lambda scene: scene.weather == "snow" or scene.ground == "snowfield"),
    ({"ja": "左|右", "en": r"\bleft\b|\bright\b"}, lambda scene: scene.relation in ("left", "right")),
    ({"ja": "手前|奥|後ろ", "en": r"\bbehind\b|\bfront\b"}, lambda scene: scene.relation == "front"),
    ({"ja": "乗|載", "en": r"\btop\b|\bunder\b"}, lambda scene: scene.relation in ("above", "below")),
    ({"ja": "二|三|四|[234]|ふた|みっつ|よっつ", "en": r"\b(two|three|four|[234])\b"}, lambda s: s.things[0].count > 1),
]


def said(name: str) -> str:
    return unicodedata.normalize("NFKC", name)


def true_words(scene: Scene, language: str) -> set[str]:
    """All words that may be marked in a caption of the scene."""
    words = LANGUAGES[language]
    true: list[str] = []
    for thing in scene.things:
        names = getattr(thing.concept, language)
        true += [*names, *map(kana_swapped if language == "ja" else plural, names)]
        true += words.thing_colours[thing.colour] if thing.colour else ()
        true += words.adjectives.get(thing.concept.kind, ())
    true += words.places[scene.ground] if scene.ground in PLACES else words.colours[scene.ground]
    if scene.style == "plain":
        true += [word for icon_set in words.sets.values() for word in icon_set]
    else:
        style = words.styles[scene.style]
        true += [*style.words, *style.of, *style.by, *style.drawn]
    return set(map(said, true))


@pytest.mark.parametrize("language", ["ja", "en"])
@pytest.mark.parametrize("split", ["train", "held_out"])
def test_a_caption_says_no_more_than_the_picture_shows(assets, language, split):
    rng = np.random.default_rng(4)
    for _ in range(400):
        scene = sample_scene(rng, assets, split)
        true = true_words(scene, language)
        for _ in range(3):
            text = said(caption(scene, rng, language, EDGE))
            parts = text.split(EDGE)
            assert set(parts[1::2]) - {""} <= true, (text, scene)
            rest = " ".join(parts[::2])
            assert not re.search("[中上下内]を背景", "".join(parts)), "what is inside has no background"
            for pattern, holds in TELLING:
                assert holds(scene) or not re.search(pattern[language], rest), (text, scene)


@pytest.mark.parametrize("language", ["ja", "en"])
def test_a_caption_names_every_thing_with_its_colour_and_number(assets, language):
    rng = np.random.default_rng(5)
    for _ in range(400):
        scene = sample_scene(rng, assets)
        text = said(caption(scene, rng, language))
        for thing in scene.things:
            names = getattr(thing.concept, language)
            names = [*names, *map(kana_swapped if language == "ja" else plural, names)]
            colours = LANGUAGES[language].thing_colours[thing.colour] if thing.colour else [""]
            gap = " " if language == "en" and thing.colour else ""
            assert any(said(f"{colour}{gap}{name}") in text for name in names for colour in colours), (text, thing)
            assert thing.count == 1 or re.search(TELLING[-1][0][language] + "|さん|よん|に", text), text


def scene_of(assets, *things, **rest) -> Scene:
    """A scene of things that are written as "cat", "cat red" or "cat 3"."""
    made = []
    for text in things:
        name, _, more = text.partition(" ")
        count, colour = (int(more), None) if more.isdigit() else (1, more or None)
        made.append(Thing(assets.concepts[name], assets.drawings[name][0], count, colour))
    return Scene(tuple(made), **rest)


@pytest.mark.parametrize(
    ("things", "rest", "ja", "en"),
    [
        (["cat"], {}, "猫", "a cat"),
        (["cat"], {"ground": "blue", "style": "oil"}, "青い背景の猫 油絵", "a cat on a blue background, oil painting"),
        (["dog"], {"ground": "meadow"}, "草原の犬", "a dog in a meadow"),
        (["cat 3"], {}, "三匹の猫", "three cats"),
        (["apple"], {"ground": "city", "weather": "rain"}, "雨の街のりんご", "an apple in the city in the rain"),
        (["cat", "dog"], {"relation": "right"}, "犬の右の猫", "a cat to the right of a dog"),
        (["cat", "dog", "car"], {}, "猫と犬と車", "a cat, a dog and a car"),
        (["car red", "house blue"], {"relation": "beside"}, "赤い車と青い家", "a red car and a blue house"),
        (["car red", "house"], {"relation": "front"}, "家の前の赤い車", "a red car in front of a house"),
    ],
)
def test_the_plain_prompt(assets, things, rest, ja, en):
    scene = scene_of(assets, *things, **rest)
    assert prompt_for(scene) == ja
    assert prompt_for(scene, "en") == en


@pytest.mark.parametrize("language", ["ja", "en"])
def test_captions_vary(assets, language):
    rng = np.random.default_rng(0)
    scene = scene_of(assets, "cat", ground="meadow", style="oil")
    assert len({caption(scene, rng, language) for _ in range(300)}) > 150


@pytest.mark.parametrize("language", LANGUAGES.values(), ids=list(LANGUAGES))
def test_there_are_words_for_everything_that_is_drawn(language):
    assert set(language.styles) == set(STYLES) - {"plain"}
    assert set(language.places) == set(PLACES)
    assert set(language.colours) == set(COLOURS)
    assert set(language.thing_colours) == set(THING_COLOURS)
    assert set(language.weathers) == set(language.with_place) == set(WEATHERS)
    assert set(language.relations) == set(language.relations_clause) == set(RELATIONS) - {"beside"}


def test_english_plurals_and_articles():
    plurals = "cat/cats fox/foxes cherry/cherries mouse/mice fish/fish salaryman/salarymen tomato/tomatoes"
    for pair in plurals.split():
        one, many = pair.split("/")
        assert plural(one) == many
    assert plural("sunglasses") == "sunglasses"
    assert plural("bowl of rice") == "bowls of rice"
    assert plural("woman in a headscarf") == "women in headscarves"


def test_kana_are_swapped_only_in_names_of_one_kana():
    assert [kana_swapped(name) for name in ("ねこ", "ラーメン", "子ねこ")] == ["ネコ", "らーめん", "子ねこ"]
