"""Sprites: drawn once, found again, and given another colour."""

import json

import numpy as np
import pytest

from embedded.scenes.colours import THING_COLOURS, recolour
from embedded.scenes.sprites import load_assets
from jsd.errors import TrainingError
from tests.embedded.scenes.conftest import icon_set


def test_every_concept_has_the_drawings_of_both_sets(assets):
    assert {d.icon_set for drawings in assets.drawings.values() for d in drawings} == {"noto", "fluent"}
    for drawings in assets.drawings.values():
        for drawing in drawings:
            sprite = assets.sprite(drawing.key)
            assert sprite.ndim == 3
            assert sprite[..., 3].max() == 255
            assert sprite[..., 3].any(0).all(), "a sprite is trimmed"
            assert (sprite[..., :3] <= sprite[..., 3:]).all(), "the colour is multiplied by alpha"


def test_sprites_are_drawn_again_only_if_the_drawings_change(icons, assets, tmp_path):
    cache = tmp_path / "cache"
    first = load_assets(icons, icons / "concepts.tsv", cache)
    files = {file: file.stat().st_mtime_ns for file in cache.iterdir()}
    again = load_assets(icons, icons / "concepts.tsv", cache)
    assert {file: file.stat().st_mtime_ns for file in cache.iterdir()} == files
    assert again.places == first.places == assets.places
    other = tmp_path / "icons"
    emoji = [one for concept in assets.concepts.values() for one in concept.emoji]
    for name in ("noto", "fluent"):
        icon_set(other / name, emoji, 3)
    changed = load_assets(other, icons / "concepts.tsv", cache)
    assert changed.places != first.places


def test_a_concept_without_a_drawing_is_named(icons, tmp_path):
    for name in ("noto", "fluent"):
        icon_set(tmp_path / name, ["🐱"], 0)
    with pytest.raises(TrainingError, match="no drawing of"):
        load_assets(tmp_path, icons / "concepts.tsv")


def test_an_icon_set_that_cannot_be_read_is_named(icons, tmp_path):
    icon_set(tmp_path / "noto", ["🐱"], 0)
    (tmp_path / "noto" / "chars.json").write_text(json.dumps(["not", "names"]))
    with pytest.raises(TrainingError, match="noto: unreadable"):
        load_assets(tmp_path, icons / "concepts.tsv")


@pytest.mark.parametrize("colour", THING_COLOURS)
def test_a_thing_takes_the_colour_and_keeps_its_dark_lines(colour):
    sprite = np.full((40, 40, 4), (206, 132, 70, 255), np.uint8)  # brown, half of it lighter, with a dark eye
    sprite[:, 28:, :3] = (230, 170, 110)
    sprite[8:14, 8:14, :3] = 20
    painted = recolour(sprite, colour)
    assert painted.shape == sprite.shape
    assert np.array_equal(painted[..., 3], sprite[..., 3])
    body = painted[20, 10, :3].astype(int)
    distance = {name: np.abs(body - tone).sum() for name, tone in THING_COLOURS.items()}
    assert min(distance, key=distance.get) == colour
    assert painted[10, 10, :3].max() < 40
    assert painted[20, 35, :3].astype(int).sum() > body.sum(), "lighter parts stay lighter"
