"""Random scenes: what is held out, and what can be seen in the style that is drawn."""

from collections import Counter
from itertools import combinations, pairwise

import numpy as np
import pytest

from embedded.scenes import Scene, Thing, held_out, load_concepts, sample_scene, shares
from embedded.scenes.colours import COLOURLESS, COLOURS, LOST
from embedded.scenes.places import OUTDOORS, PLACES
from embedded.scenes.scene import RELATIONS
from embedded.scenes.styles import STYLES


def scenes(assets, split="train", count=1500):
    rng = np.random.default_rng(1)
    return [sample_scene(rng, assets, split) for _ in range(count)]


@pytest.fixture(scope="module")
def trained(assets):
    return scenes(assets)


def compositions(scene):
    """The scene's things, each with the style and the ground, and with each other."""
    for thing in scene.things:
        yield Scene((thing,), style=scene.style)
        yield Scene((thing,), ground=scene.ground)
    yield from (Scene(pair) for pair in combinations(scene.things, 2))


def test_a_held_out_composition_never_comes_in_training(trained):
    assert not any(held_out(part) for scene in trained for part in compositions(scene))


def test_every_held_out_scene_holds_a_held_out_composition(assets):
    for scene in scenes(assets, "held_out", 200):
        assert any(held_out(part) for part in compositions(scene))


def test_one_composition_in_ten_is_held_out_and_no_thing_alone(assets):
    things = [Thing(concept, assets.drawings["cat"][0]) for concept in load_concepts().values()]
    assert not any(held_out(Scene((thing,))) for thing in things)
    for setting in ({"style": "oil"}, {"ground": "beach"}, {"ground": "blue"}):
        assert 0.07 < np.mean([held_out(Scene((thing,), **setting)) for thing in things]) < 0.13
    pairs = list(pairwise(things))
    assert 0.07 < np.mean([held_out(Scene(pair)) for pair in pairs]) < 0.13
    assert all(held_out(Scene(pair)) == held_out(Scene(pair[::-1])) for pair in pairs)


def test_an_unknown_split_is_refused(assets):
    with pytest.raises(ValueError, match="not 'test'"):
        sample_scene(np.random.default_rng(0), assets, "test")


def test_every_style_place_colour_and_relation_comes(trained):
    assert {scene.style for scene in trained} == set(STYLES) == set(shares.STYLE_WEIGHTS)
    assert {scene.ground for scene in trained} == {*COLOURS, *PLACES}
    assert {scene.relation for scene in trained} == {None, *RELATIONS}
    assert {scene.things[0].count for scene in trained} == {1, 2, 3, 4}
    assert Counter(len(scene.things) for scene in trained).keys() == {1, 2, 3}


def test_a_style_keeps_the_colours_that_the_scene_names(trained):
    for scene in trained:
        colours = {thing.colour for thing in scene.things} - {None}
        named = colours | ({scene.ground} & set(COLOURS)) - {"white"}
        assert not named & set(LOST.get(scene.style, ())), scene
        assert not (colours and scene.style in COLOURLESS), scene
        assert scene.ground not in colours, scene


def test_two_things_may_have_a_colour_each(trained):
    pairs = [[thing.colour for thing in scene.things] for scene in trained if len(scene.things) == 2]
    coloured = [pair for pair in pairs if any(pair)]
    assert 0.1 < len(coloured) / len(pairs) < 0.4
    assert all(first != second for first, second in coloured)
    assert any(all(pair) for pair in coloured)
    assert any(not all(pair) for pair in coloured)


def test_there_is_weather_only_out_of_doors_or_on_a_colour(trained):
    assert all(scene.ground in OUTDOORS or scene.ground in COLOURS for scene in trained if scene.weather)


def test_the_same_seed_gives_the_same_scenes(assets, trained):
    assert scenes(assets, count=50) == trained[:50]
