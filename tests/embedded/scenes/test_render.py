"""Pictures of scenes: every style and place, any size, and nothing cut."""

from dataclasses import replace

import numpy as np
import pytest

from embedded.scenes import Scene, Thing, render, render_with_spots, sample_scene
from embedded.scenes.colours import COLOURS
from embedded.scenes.layout import lay_out
from embedded.scenes.places import PLACES
from embedded.scenes.places.backdrop import Backdrop
from embedded.scenes.scene import WEATHERS
from embedded.scenes.styles import STYLES

SIZES = ((256, 256), (416, 160), (160, 416))


@pytest.fixture
def cat(assets):
    return Thing(assets.concepts["cat"], assets.drawings["cat"][0])


def drawn(scene, assets, seed=0, size=(256, 256)):
    return render(scene, np.random.default_rng(seed), assets, size)


@pytest.mark.parametrize("style", STYLES)
def test_every_style_renders_in_every_proportion_and_differs_from_plain(assets, cat, style):
    for size in SIZES:
        scene = Scene((cat,), ground="meadow", style=style)
        picture = drawn(scene, assets, size=size)
        assert picture.shape == (size[1], size[0], 3)
        assert picture.dtype == np.uint8
        plain = drawn(replace(scene, style="plain"), assets, size=size)
        assert style == "plain" or np.abs(picture.astype(int) - plain).mean() > 4


def test_every_place_renders_in_every_proportion_and_differs_from_the_others(assets, cat):
    for size in SIZES:
        pictures = [drawn(Scene((cat,), ground=place), assets, size=size).astype(int) for place in PLACES]
        assert {picture.shape for picture in pictures} == {(size[1], size[0], 3)}
        near = [np.abs(a - b).mean() for i, a in enumerate(pictures) for b in pictures[:i]]
        assert min(near) > 6


@pytest.mark.parametrize("weather", WEATHERS)
@pytest.mark.parametrize("style", ["plain", "pixel", "ukiyoe"])
def test_the_weather_can_be_seen(assets, cat, weather, style):
    scene = Scene((cat,), ground="city", style=style)
    dry, wet = (drawn(s, assets).astype(int) for s in (scene, replace(scene, weather=weather)))
    assert np.abs(dry - wet).mean() > 3


@pytest.mark.parametrize("ground", COLOURS)
def test_a_ground_has_its_colour(assets, cat, ground):
    picture = drawn(Scene((cat,), ground=ground), assets)
    assert np.abs(np.median(picture[:, :8], (0, 1)) - np.float32(COLOURS[ground])).max() < 12


def test_the_same_seed_gives_the_same_picture_and_another_seed_another(assets):
    for seed in range(5):
        scene = sample_scene(np.random.default_rng(seed), assets)
        first, again, other = (drawn(scene, assets, s) for s in (seed, seed, seed + 1))
        assert np.array_equal(first, again)
        assert not np.array_equal(first, other)


@pytest.mark.parametrize("size", SIZES)
def test_everything_is_whole_where_it_is_said_to_be(assets, size):
    rng = np.random.default_rng(2)
    for _ in range(25):
        scene = replace(sample_scene(rng, assets), style="plain")
        _, spots = render_with_spots(scene, rng, assets, size)
        assert len(spots) == sum(thing.count for thing in scene.things)
        for spot in spots:
            assert spot.x - spot.width / 2 > 0
            assert spot.x + spot.width / 2 < size[0]
            assert spot.bottom - spot.height > 0
            assert spot.bottom < size[1]
            assert max(spot.width, spot.height) > 0.18 * min(size)


@pytest.mark.parametrize("size", SIZES)
def test_large_and_wide_things_are_moved_into_the_picture(assets, size):
    house = Thing(assets.concepts["house"], assets.drawings["house"][0])  # buildings are large
    backdrop = Backdrop(np.zeros((size[1], size[0], 3)), floor=(0.8 * size[1], 0.95 * size[1]))
    rng = np.random.default_rng(3)
    for sprite in (np.zeros((100, 200, 4)), np.zeros((200, 100, 4))):
        for _ in range(300):
            (spot,) = lay_out(Scene((house,), ground="meadow"), backdrop, [sprite], True, rng)
            assert 0 < spot.x - spot.width / 2 < spot.x + spot.width / 2 < size[0]
            assert 0 < spot.bottom - spot.height < spot.bottom < size[1]


@pytest.mark.parametrize("size", SIZES)
def test_two_things_stand_as_the_scene_says(assets, cat, size):
    dog = Thing(assets.concepts["dog"], assets.drawings["dog"][0])
    for seed in range(3):
        for ground in ("white", "meadow"):
            at = {}
            for relation in ("left", "right", "above", "below", "front"):
                scene = Scene((cat, dog), relation, ground)
                spots = render_with_spots(scene, np.random.default_rng(seed), assets, size)[1]
                at[relation] = sorted(spots, key=lambda spot: spot.label)
                if relation == "front":
                    assert [spot.label for spot in spots] == [2, 1], "the nearer one is drawn last"
            assert at["left"][0].x < at["left"][1].x
            assert at["right"][0].x > at["right"][1].x
            assert at["above"][0].bottom < at["above"][1].bottom
            assert at["below"][0].bottom > at["below"][1].bottom
            assert at["front"][0].bottom > at["front"][1].bottom


@pytest.mark.parametrize("size", [(152, 256), (256, 424), (250, 256)])
def test_other_sizes_are_refused(assets, cat, size):
    with pytest.raises(ValueError, match="from 160 to 416 in steps of 8"):
        drawn(Scene((cat,)), assets, size=size)


def test_a_thing_alone_on_one_colour_is_there_in_its_own_colour(assets, cat):
    picture = drawn(Scene((replace(cat, colour="blue"),)), assets).astype(int)
    blue = (picture[..., 2] - picture[..., 0] > 60).mean()
    assert 0.2 < blue < 0.8
