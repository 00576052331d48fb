"""What a mask keeps is kept: its pixels are the input's own. (These pictures are too small for the watermark.)"""

from __future__ import annotations

import numpy as np
import pytest
from PIL import Image, ImageDraw, ImageFilter

from jsd.engine import Engine
from jsd.images import crop_to
from jsd.request import SCHEDULER_NAMES, Request
from jsd.sampling import generate


def draw(components, image, **changed) -> np.ndarray:
    """The first picture of a request with `image`, as integers (height, width, 3)."""
    values = {"num_inference_steps": 4, "guidance_scale": 3.0, "seed": 11, "prompt_strength": 0.7}
    values |= {"width": image.width, "height": image.height, "image": image}
    return np.asarray(generate(components, Request("富士山 水彩画", **values | changed)).images[0], int)


@pytest.fixture
def soft(photo) -> Image.Image:
    """A feathered mask that crosses latent cells: black, all greys, and white."""
    mask = Image.new("L", photo.size)
    ImageDraw.Draw(mask).ellipse((23, 6, 66, 56), fill=255)
    return mask.filter(ImageFilter.GaussianBlur(4))


@pytest.mark.parametrize("name", SCHEDULER_NAMES)
def test_pixels_where_the_mask_is_black_are_the_inputs_own(components, photo, soft, name):
    drawn, black = draw(components, photo, mask=soft, scheduler=name), np.asarray(soft) == 0
    assert 0.1 < black.mean() < 0.9
    assert (drawn == np.asarray(photo))[black].all()
    assert np.abs(drawn - np.asarray(photo))[np.asarray(soft) == 255].mean() > 3


def test_the_kept_pixels_are_exact_at_another_size_too(components, photo):
    image, mask = photo.resize((400, 320)), Image.new("L", (200, 160))
    mask.paste(255, (100, 0, 200, 160))
    drawn = draw(components, image, mask=mask, width=80, height=64)
    assert (drawn == np.asarray(crop_to(image, (80, 64))))[:, :40].all()


def test_grey_parts_of_a_mask_mix_the_input_with_what_is_painted(components, photo):
    """Two masks with the same latents: one has a grey column where the other is white."""
    mask = Image.new("L", photo.size, 255)
    mask.paste(0, (0, 0, 8, 64))
    painted = draw(components, photo, mask=mask)
    mask.paste(64, (20, 0, 21, 64))
    mixed, kept = draw(components, photo, mask=mask), np.asarray(photo, int)
    assert np.abs(mixed[:, 20] - (0.75 * kept + 0.25 * painted)[:, 20]).max() <= 1
    assert (mixed[:, 21:] == painted[:, 21:]).all()


@pytest.mark.parametrize("masked", [False, True])
def test_a_prompt_strength_of_0_returns_the_inputs_own_pixels(components, photo, soft, masked):
    size = {"width": photo.width, "height": photo.height}
    asked = Request("猫", image=photo, mask=soft if masked else None, prompt_strength=0, num_outputs=2, **size)
    with Engine(components) as engine:
        result = engine.submit(asked).result(60)
    assert [image.tobytes() for image in result.images] == [photo.tobytes()] * 2


@pytest.mark.parametrize("strength", [0.5, 1.0])
def test_a_white_mask_gives_what_no_mask_gives(components, photo, strength):
    white = draw(components, photo, mask=Image.new("L", (3, 3), 255), prompt_strength=strength)
    assert (white == draw(components, photo, prompt_strength=strength)).all()


def test_transparent_parts_of_a_mask_are_kept(components, photo):
    mask = Image.new("RGBA", photo.size, (255, 255, 255, 255))
    mask.paste((255, 255, 255, 0), (0, 0, 40, 64))
    assert (draw(components, photo, mask=mask) == np.asarray(photo))[:, :40].all()
