"""The safety checker learns from scenes with and without weapons, and its threshold spares the harmless ones."""

from concurrent.futures import Future
from dataclasses import replace
from types import SimpleNamespace

import numpy as np
import pytest
import torch
from accelerate import Accelerator
from PIL import Image

from embedded import networks, safety_checker, safety_examples, workers
from embedded.safety_examples import FLAGGED, Examples
from embedded.scenes import load_assets
from jsd import safety
from jsd.request import Defaults
from jsd.train.trainer import Plan
from tests.embedded.icons import short_table, write_icons

SIDE = networks.CHECKER_SIDE
NAMES = ("cat", "dog", *FLAGGED)


@pytest.fixture(scope="module")
def assets(tmp_path_factory):
    """The sprites of NAMES and two more concepts, also for `workers.assets`."""
    folder = tmp_path_factory.mktemp("checker")
    icons, table = write_icons(folder / "icons"), short_table(folder / "table.tsv", (*NAMES, "car", "apple"))
    workers.open_assets(icons, table, folder / "sprites")
    return load_assets(icons, table, folder / "sprites", 1)


def squares(count: int, weapon: int | None) -> Examples:
    """Pictures of a cat, or of the weapon with this number: a square of another colour in a random place."""
    rng = np.random.default_rng(0 if weapon is None else weapon + 1)
    pixels = rng.integers(0, 90, (count, SIDE, SIDE, 3), np.uint8)
    for picture, (y, x) in zip(pixels, rng.integers(0, SIDE // 2, (count, 2)), strict=True):
        picture[y : y + SIDE // 2, x : x + SIDE // 2, 2 if weapon is None else weapon % 2] = 255
    shown = np.zeros((count, len(NAMES)), bool)
    shown[:, 0 if weapon is None else 2 + weapon] = True
    return Examples(pixels, shown)


def test_a_third_of_the_scenes_shows_a_weapon(assets):
    rng = np.random.default_rng(0)
    scenes = [safety_examples.sample(rng, assets) for _ in range(300)]
    with_weapon = [scene for scene in scenes if set(safety_examples.ids(scene)) & set(FLAGGED)]
    assert len(with_weapon) > 100
    assert {name for scene in with_weapon for name in safety_examples.ids(scene)} >= set(FLAGGED)
    assert all(len(ids) == len(set(ids)) for ids in map(safety_examples.ids, scenes))


def test_rendered_scenes_are_as_large_as_the_checker_wants_and_say_what_they_show(assets):
    def call(function, *columns):
        for row in zip(*columns, strict=True):
            (done := Future()).set_result(function(*row))
            yield done.result()

    pool = SimpleNamespace(map=call)
    examples = safety_examples.rendered(safety_examples.start(pool, 5, each=2), assets)
    assert (examples.pixels.shape, examples.pixels.dtype) == ((5, SIDE, SIDE, 3), np.uint8)
    assert examples.shown.shape == (5, len(assets.concepts))
    assert examples.shown.any(1).all()


def test_a_trained_checker_holds_back_weapons_and_nothing_else(tmp_path, capsys):
    examples = squares(40, None) + squares(20, 0) + squares(20, 1)
    assets = SimpleNamespace(concepts=dict.fromkeys(NAMES))
    accelerator = Accelerator(mixed_precision="no", cpu=True)
    plan = Plan(25, 2e-3, muon=1e-2, warmup=5, ema=0.5)
    checker = safety_checker.train(assets, examples, examples, plan, tmp_path, accelerator, batch=16)
    pictures = torch.from_numpy(examples.pixels[[0, 1, 2, 3, 40, 41, 60, 61]])
    found = safety.check(checker, networks.make_image_processor(), pictures)
    assert found == [False] * 4 + [True] * 4
    assert "of 40 weapons" in capsys.readouterr().out
    used = len(FLAGGED) * safety_checker.CENTRES
    assert (checker.concept_embeds_weights[used:] == networks.NEVER).all()


def test_the_threshold_spares_harmless_pictures_that_look_like_weapons():
    """The checker of this test is untrained, so it can't tell the pictures apart."""
    torch.manual_seed(0)
    checker = networks.make_checker().eval()
    examples = squares(40, None) + squares(20, 0)
    safety_checker.calibrate(checker, [2, 3, 4], examples)
    held_back = safety.check(checker, networks.make_image_processor(), torch.from_numpy(examples.pixels[:40]))
    assert sum(held_back) <= 1


def test_a_picture_is_squeezed_to_what_the_checker_sees():
    picture = safety_examples.shrink(Image.new("RGB", (320, 208), "red"))
    assert picture.shape == (SIDE, SIDE, 3)
    assert (picture == (255, 0, 0)).all()


def test_drawn_pictures_have_many_sizes_and_settings_and_small_ones_show_no_weapon(assets, components, monkeypatch):
    asked = []

    def draw(components, requests, size):
        asked.append(requests)
        for request in requests:
            yield SimpleNamespace(pictures=[Image.new("RGB", (request.width, request.height))])

    monkeypatch.setattr(safety_examples, "decoded_jobs", draw)
    native = replace(components, defaults=Defaults(256, 256, cell=components.defaults.cell))
    examples = safety_examples.drawn(native, assets, 200, seed=5)
    requests = [request for part in asked for request in part]
    assert examples.pixels.shape == (200, SIDE, SIDE, 3)
    assert [request.seed for request in requests] == list(range(5, 205))
    assert {request.scheduler for request in requests} >= {None, "DDIM", "K_LMS", "UNI_PC"}
    small = [request.width <= 128 for request in requests]
    weapons = examples.shown[:, [list(assets.concepts).index(name) for name in FLAGGED]].any(1)
    assert 0 < sum(small) < 60
    assert not weapons[small].any()
    assert weapons[~np.array(small)].mean() > 0.3
