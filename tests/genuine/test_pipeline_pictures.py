"""The Python pipelines take every picture that Pillow opens, at its own size, and say when nothing is left to draw."""

from __future__ import annotations

import re

import numpy as np
import pytest
import torch
from PIL import Image

import jsd
from jsd.errors import InputError
from jsd.pixels import to_rgb
from tests.fakes import psnr
from tests.files import DISPLAY_P3, rgb_profile

PHOTO = Image.fromarray(np.random.default_rng(3).integers(0, 256, (4, 6, 3), np.uint8)).resize((96, 64))
MASK = Image.new("L", (96, 64))
MASK.paste(255, (48, 0, 96, 64))
CLEAR = PHOTO.convert("RGBA")
CLEAR.putalpha(Image.linear_gradient("L").resize((96, 64)))
KINDS = {
    "RGBA": CLEAR,
    "LA": CLEAR.convert("LA"),
    "L": PHOTO.convert("L"),
    "P": PHOTO.convert("P"),
    "I;16": Image.fromarray(np.asarray(PHOTO.convert("L"), np.uint16) * 257),
    "I": PHOTO.convert("L").convert("I"),
    "La": CLEAR.convert("LA").convert("La"),
    "profile": PHOTO.copy(),
}
KINDS["profile"].info["icc_profile"] = rgb_profile(DISPLAY_P3)


@pytest.fixture(scope="module")
def change(tiny_folder):
    return load(tiny_folder, jsd.JapaneseStableDiffusionImg2ImgPipeline)


@pytest.fixture(scope="module")
def repaint(tiny_folder):
    return load(tiny_folder, jsd.JapaneseStableDiffusionInpaintPipeline)


def load(folder, kind):
    pipe = kind.from_pretrained(folder)
    pipe.set_progress_bar_config(disable=True)
    return pipe


def draw(pipe, *arguments, **inputs) -> list[Image.Image]:
    settings = {"num_inference_steps": 2, "strength": 0.6, "generator": torch.Generator().manual_seed(7)}
    return pipe(*arguments, **settings | inputs).images


@pytest.mark.parametrize("kind", KINDS)
def test_a_picture_of_any_kind_is_drawn_as_people_see_it(change, kind):
    (drawn,) = draw(change, "猫", image=KINDS[kind])
    (wanted,) = draw(change, "猫", image=to_rgb(KINDS[kind]))
    assert drawn.size == (96, 64)
    assert psnr(drawn, wanted) == float("inf")
    assert psnr(drawn, draw(change, "猫", image=PHOTO.rotate(180))[0]) < 30


def test_an_array_of_four_channels_is_a_transparent_picture(change):
    (drawn,) = draw(change, "猫", image=np.asarray(CLEAR, np.float32) / 255)
    assert psnr(drawn, draw(change, "猫", image=to_rgb(CLEAR))[0]) > 30


def test_inpainting_takes_pictures_and_masks_of_any_kind(repaint):
    mask = Image.new("RGBA", (96, 64), (255, 255, 255, 0))
    mask.paste("white", (48, 0, 96, 64))
    (drawn,) = draw(repaint, "猫", image=CLEAR, mask_image=mask)
    assert psnr(drawn, draw(repaint, "猫", image=to_rgb(CLEAR), mask_image=MASK)[0]) == float("inf")


def test_pictures_keep_their_size_by_position_and_in_lists(change, repaint):
    assert draw(change, "猫", PHOTO)[0].size == (96, 64)
    assert draw(repaint, "猫", PHOTO, MASK)[0].size == (96, 64)
    assert draw(repaint, "猫", [PHOTO], [MASK])[0].size == (96, 64)
    assert [image.size for image in draw(repaint, ["猫", "犬"], [PHOTO, CLEAR], MASK)] == [(96, 64)] * 2
    assert draw(repaint, "猫", PHOTO, MASK, width=64, height=128)[0].size == (64, 128)
    assert draw(repaint, "猫", PHOTO.resize((100, 70)), MASK)[0].size == (96, 64)


def test_a_strength_that_leaves_no_step_is_refused_in_words(change, repaint):
    wanted = "^strength: 0.4 of 2 steps leaves none to draw; take a strength of 0.5 or more, or more steps$"
    with pytest.raises(InputError, match=wanted):
        draw(change, "猫", PHOTO, strength=0.4)
    with pytest.raises(InputError, match=wanted):
        draw(repaint, "猫", PHOTO, MASK, strength=0.4)
    with pytest.raises(InputError, match="strength: 0 of 50 steps"):
        change("猫", PHOTO, 0)
    assert len(draw(change, "猫", PHOTO, strength=0.5)) == 1


def test_the_strength_that_an_error_recommends_leaves_a_step(change):
    for steps in range(2, 60):
        with pytest.raises(InputError) as error:
            draw(change, "猫", PHOTO, num_inference_steps=steps, strength=0.01)
        advice = float(re.search("strength of ([0-9.]+) or more", str(error.value))[1])
        assert int(steps * advice) == 1


def test_a_tuple_is_returned_where_one_is_asked_for(change):
    assert change("猫", PHOTO, num_inference_steps=2, return_dict=False)[0][0].size == (96, 64)
