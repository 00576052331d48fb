"""Image to image draws in a size that suits the model, and accepts pictures of any size and mode."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
from PIL import Image

from jsd import images, source
from jsd.engine import Engine
from jsd.errors import InputError
from jsd.request import Defaults, Request
from jsd.sampling import generate
from tests.fakes import psnr


def request(photo, scheduler="DDIM", **changed):
    values = {
        "num_outputs": 2,
        "num_inference_steps": 6,
        "guidance_scale": 3.0,
        "seed": 11,
        "image": photo,
        "width": photo.width,
        "height": photo.height,
        "prompt_strength": 0.7,
    }
    return Request("富士山 水彩画", scheduler=scheduler, **values | changed)


def test_a_picture_does_not_depend_on_the_requests_drawn_with_it(components, photo, mask):
    asked = [request(photo, mask=mask), request(photo, "K_HEUN"), Request("猫", width=80, height=64, seed=3)]
    alone = [generate(components, one).images[0] for one in asked]
    with Engine(components) as engine:
        together = [future.result(60).images[0] for future in [engine.submit(one) for one in asked]]
    assert all(psnr(a, b) >= 50 for a, b in zip(alone, together, strict=True))


@pytest.mark.parametrize(
    ("size", "asked", "wanted"),
    [
        ((64, 64), {}, (64, 64)),
        ((1024, 768), {}, (80, 64)),
        ((768, 1024), {}, (64, 80)),
        ((1, 1), {}, (64, 64)),
        ((3000, 1000), {}, (112, 64)),
        ((10_000, 10), {}, (1024, 64)),
        ((200, 100), {"width": 128}, (128, 64)),
        ((100, 200), {"width": 128}, (128, 256)),
        ((100, 2000), {"width": 512}, (512, 1024)),
        ((2000, 2000), {"width": 1024, "height": 768}, (1024, 768)),
    ],
)
def test_a_size_left_open_has_the_pictures_proportions_and_the_models_area(components, size, asked, wanted):
    resolved = Request("猫", image=Image.new("RGB", size), **asked).resolve(components.defaults)
    assert (resolved.width, resolved.height) == wanted


@pytest.mark.parametrize(
    ("own", "cell", "wanted"), [(256, 32, (288, 224)), (512, 8, (592, 440)), (1024, 8, (1024, 888))]
)
def test_a_photo_becomes_about_as_large_as_what_the_model_draws(own, cell, wanted):
    asked = Request("猫", image=Image.new("RGB", (1024, 768))).resolve(Defaults(own, own, cell=cell))
    assert (asked.width, asked.height) == wanted


def test_a_size_far_from_the_models_own_is_drawn_as_asked_and_the_notes_say_what_to_expect(components):
    for size, far in [((64, 64), False), ((96, 64), False), ((128, 128), True), ((64, 256), True)]:
        asked = Request("猫", width=size[0], height=size[1], num_inference_steps=1, guidance_scale=1)
        result = generate(components, asked)
        assert result.images[0].size == size
        wanted = f"width, height: {size[0]} x {size[1]} is far from 64 x 64, the model's own size"
        assert any(note.startswith(wanted) for note in result.notes()) == far


def test_a_picture_of_other_proportions_is_cropped_and_not_squeezed(components):
    image = Image.new("RGB", (128, 64), "blue")
    image.paste("red", (32, 0, 96, 64))
    source = images.crop_to(image, (64, 64))
    assert source.size == (64, 64)
    assert source.getcolors() == [(64 * 64, (255, 0, 0))]


def test_a_mask_of_another_size_covers_the_whole_picture(components):
    image, mask = Image.new("RGB", (128, 64)), Image.new("L", (6, 4))
    mask.paste(255, (3, 0, 6, 4))
    asked = source.at_size(Request("猫", image=image, mask=mask, width=128, height=64).resolve(components.defaults))
    assert source.at_size(asked).mask.tobytes() == asked.mask.tobytes()
    white = np.asarray(asked.mask) == 255
    assert white.shape == (64, 128)
    assert white[:, 64:].all()
    assert not white[:, :64].any()


@pytest.mark.parametrize("mode", ["L", "LA", "RGBA", "P", "1", "CMYK", "I;16", "YCbCr"])
def test_a_request_accepts_a_picture_of_any_mode(components, photo, mode):
    image = photo.convert("L").point(lambda v: v * 257, "I").convert("I;16") if mode == "I;16" else photo.convert(mode)
    asked = request(image, mask=image, num_inference_steps=2)
    assert generate(components, asked).images[0].size == (80, 64)


@pytest.mark.parametrize(
    ("inputs", "message"),
    [
        ({"mask": Image.new("L", (8, 8))}, "mask: given without an image"),
        ({"prompt_strength": 0.5}, "prompt_strength: given without an image"),
        ({"image": "cat.png"}, "image: a picture is wanted, 'cat.png' was given"),
        ({"image": Image.new("RGB", (0, 8))}, "image: a picture of 0 x 8 pixels"),
        ({"image": Image.new("RGB", (8, 8)), "prompt_strength": 1.01}, "prompt_strength: 1.01 was given; 0 to 1"),
        ({"image": Image.new("RGB", (8, 8)), "prompt_strength": None}, "prompt_strength: a number is wanted"),
        ({"image": Image.new("RGB", (8, 8)), "prompt_strength": float("nan")}, "prompt_strength: nan"),
    ],
)
def test_inputs_that_do_not_go_together_are_refused(inputs, message):
    with pytest.raises(InputError, match=message):
        Request("猫", **inputs)


def test_the_metadata_say_how_the_start_latents_were_made(components, photo, mask):
    asked = request(photo, mask=mask, num_outputs=1)
    metadata = generate(components, asked).metadata(0)
    assert (metadata["start"], metadata["prompt_strength"]) == ("inpainting", 0.7)
    assert generate(components, replace(asked, mask=None)).metadata(0)["start"] == "image to image"
    assert "start" not in generate(components, Request("猫", width=64, height=64)).metadata(0)
