"""Image to image and inpainting draw what stock diffusers draws, keep what they are to keep, and take any picture."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
import torch
from diffusers import StableDiffusionImg2ImgPipeline, StableDiffusionInpaintPipeline, StableDiffusionPipeline
from PIL import Image, ImageDraw

from jsd import images, sampling, source, vae
from jsd.engine import Engine
from jsd.errors import InputError
from jsd.request import SCHEDULER_NAMES, Request
from jsd.sampling import generate
from tests.fakes import CELL, psnr
from tests.test_sampling import STOCK

DRAWS_NOISE = ("K_EULER_ANCESTRAL", "LCM")


@pytest.fixture(scope="module")
def parts(tiny_folder):
    stock = StableDiffusionPipeline.from_pretrained(tiny_folder, local_files_only=True, dtype=torch.float32)
    return stock.components, dict(stock.scheduler.config)


@pytest.fixture(scope="module")
def photo():
    """Smooth and coloured, 80 x 64."""
    cells = np.random.default_rng(3).integers(0, 256, (4, 5, 3), np.uint8)
    return Image.fromarray(cells).resize((80, 64), Image.Resampling.BICUBIC)


@pytest.fixture(scope="module")
def mask():
    """The right 48 of 80 columns are white, on the edge of a cell."""
    image = Image.new("L", (80, 64))
    image.paste(255, (2 * CELL, 0, 80, 64))
    return image


def request(photo, scheduler="DDIM", **changed):
    values = {
        "num_outputs": 2,
        "num_inference_steps": 6,
        "guidance_scale": 3.0,
        "seed": 11,
        "image": photo,
        "prompt_strength": 0.7,
    }
    return Request("富士山 水彩画", scheduler=scheduler, **values | changed)


def draw_stock(pipeline_class, parts, asked, **more):
    components, config = parts
    scheduler_class, arguments = STOCK[asked.scheduler]
    scheduler = scheduler_class.from_config(config, **arguments)
    pipeline = pipeline_class(**{**components, "scheduler": scheduler}, requires_safety_checker=True)
    pipeline.set_progress_bar_config(disable=True)
    return pipeline(
        asked.prompt,
        image=asked.image,
        strength=asked.prompt_strength,
        num_inference_steps=asked.num_inference_steps,
        guidance_scale=asked.guidance_scale,
        num_images_per_prompt=asked.num_outputs,
        generator=[torch.Generator().manual_seed(asked.seed + i) for i in range(asked.num_outputs)],
        **more,
    ).images


@pytest.mark.parametrize("name", SCHEDULER_NAMES)
@pytest.mark.parametrize("strength", [0.7, 1.0])
def test_image_to_image_draws_what_stock_diffusers_draws(components, parts, photo, name, strength):
    asked = request(photo, name, prompt_strength=strength)
    ours, theirs = generate(components, asked).images, draw_stock(StableDiffusionImg2ImgPipeline, parts, asked)
    for a, b in zip(ours, theirs, strict=True):
        assert psnr(a, b) >= 50
    assert psnr(ours[0], theirs[1]) < 30


# Where the sampler draws noise, stock goes on from a generator it has also sampled the masked picture with. And of
# several pictures it starts all from a sample of the first one's generator: ours do not depend on their company.
@pytest.mark.parametrize("name", [name for name in SCHEDULER_NAMES if name not in DRAWS_NOISE])
@pytest.mark.parametrize("strength", [0.7, 1.0])
def test_inpainting_draws_what_stock_diffusers_draws(components, parts, photo, mask, name, strength):
    asked = request(photo, name, prompt_strength=strength, mask=mask, num_outputs=1)
    (theirs,) = draw_stock(StableDiffusionInpaintPipeline, parts, asked, mask_image=mask, width=80, height=64)
    job = sampling.prepare(components, asked)
    while not job.finished:
        sampling.step(components, [job])
    assert psnr(vae.decode(components, job.x_t)[0], theirs) >= 50
    painted = (2 * CELL, 0, 80, 64)
    assert psnr(sampling.finish(components, job).images[0].crop(painted), theirs.crop(painted)) >= 50


def round_trip(components, picture):
    z = vae.encode(components, picture).mean * components.vae.config.scaling_factor
    return vae.decode(components, z)[0]


@pytest.mark.parametrize("name", SCHEDULER_NAMES)
def test_inpainting_keeps_every_pixel_that_is_not_white(components, photo, name):
    """Also with a mask that crosses cells: what is kept is the VAE's own rendering."""
    mask = Image.new("L", photo.size)
    ImageDraw.Draw(mask).ellipse((23, 11, 61, 50), fill=255)
    picture = generate(components, request(photo, name, mask=mask, num_outputs=1)).images[0]
    black = np.asarray(mask) == 0
    kept, drawn = np.asarray(round_trip(components, photo)), np.asarray(picture)
    assert (kept[black] == drawn[black]).all()
    assert np.abs(kept[~black].astype(int) - drawn[~black]).mean() > 3


@pytest.mark.parametrize("name", SCHEDULER_NAMES)
def test_at_strength_0_the_picture_stays_as_it_is(components, photo, name):
    asked = request(photo, name, prompt_strength=0, num_outputs=1)
    with Engine(components) as engine:
        result = engine.submit(asked).result(60)
    assert psnr(result.images[0], generate(components, asked).images[0]) == float("inf")
    nearest = generate(components, replace(asked, prompt_strength=0.01, seed=11)).images[0]
    furthest = generate(components, replace(asked, prompt_strength=1.0, seed=11)).images[0]
    assert psnr(result.images[0], nearest) > psnr(result.images[0], furthest)


def test_company_does_not_change_it(components, photo, mask):
    asked = [request(photo, mask=mask), request(photo, "K_HEUN"), Request("猫", width=80, height=64, seed=3)]
    alone = [generate(components, one).images[0] for one in asked]
    with Engine(components) as engine:
        together = [future.result(60).images[0] for future in [engine.submit(one) for one in asked]]
    assert all(psnr(a, b) >= 50 for a, b in zip(alone, together, strict=True))


@pytest.mark.parametrize(
    ("size", "asked", "wanted"),
    [
        ((80, 64), {}, (80, 64)),
        ((90, 70), {}, (80, 64)),
        ((1, 1), {}, (64, 64)),
        ((3000, 1500), {}, (1024, 512)),
        ((4000, 100), {}, (1024, 64)),
        ((2000, 2000), {}, (1024, 1024)),
        ((200, 100), {"width": 128}, (128, 64)),
        ((100, 200), {"width": 128}, (128, 256)),
        ((100, 2000), {"width": 512}, (512, 1024)),
        ((200, 100), {"width": 64, "height": 128}, (64, 128)),
    ],
)
def test_the_size_is_the_pictures_own_as_far_as_it_fits(components, size, asked, wanted):
    resolved = Request("猫", image=Image.new("RGB", size), **asked).resolve(components.defaults)
    assert (resolved.width, resolved.height) == wanted


def test_a_picture_of_other_proportions_is_cut_not_squeezed(components):
    image = Image.new("RGB", (128, 64), "blue")
    image.paste("red", (32, 0, 96, 64))
    source = images.crop_to(image, (64, 64))
    assert source.size == (64, 64)
    assert source.getcolors() == [(64 * 64, (255, 0, 0))]


def test_a_mask_of_another_size_lies_over_the_whole_picture(components):
    image, mask = Image.new("RGB", (128, 64)), Image.new("L", (6, 4))
    mask.paste(255, (3, 0, 6, 4))
    asked = source.at_size(Request("猫", image=image, mask=mask).resolve(components.defaults))
    assert source.at_size(asked).mask.tobytes() == asked.mask.tobytes()
    white = np.asarray(asked.mask) == 255
    assert white.shape == (64, 128)
    assert white[:, 64:].all()
    assert not white[:, :64].any()


@pytest.mark.parametrize("mode", ["L", "LA", "RGBA", "P", "1", "CMYK", "I;16", "YCbCr"])
def test_pictures_of_any_mode_are_taken_from_python_too(components, photo, mode):
    image = photo.convert("L").point(lambda v: v * 257, "I").convert("I;16") if mode == "I;16" else photo.convert(mode)
    asked = Request("猫", image=image, mask=image, prompt_strength=0.5, num_inference_steps=2, seed=1)
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
def test_what_does_not_go_together_is_refused(inputs, message):
    with pytest.raises(InputError, match=message):
        Request("猫", **inputs)


def test_metadata_tell_what_a_picture_was_made_from(components, photo, mask):
    asked = request(photo, mask=mask, num_outputs=1)
    told = generate(components, asked).metadata(0)
    assert (told["start"], told["prompt_strength"]) == ("inpainting", 0.7)
    assert generate(components, replace(asked, mask=None)).metadata(0)["start"] == "image to image"
    assert "start" not in generate(components, Request("猫", width=64, height=64)).metadata(0)
