"""A GPU draws the pictures that stock diffusers draws there, and those of the CPU."""

from __future__ import annotations

from pathlib import Path

import pytest
from diffusers import StableDiffusionImg2ImgPipeline

from jsd.model import Components
from jsd.request import SCHEDULER_NAMES, Request
from jsd.sampling import generate
from tests.fakes import psnr
from tests.gpu.conftest import ALIKE, DEVICE
from tests.stock import Stock

TWO = Request(
    "富士山 水彩画", "白黒", width=80, height=64, num_outputs=2, num_inference_steps=6, guidance_scale=3.0, seed=11
)
FROM_PHOTO = {"prompt_strength": 0.7, "scheduler": "DDIM"}


@pytest.fixture(scope="session")
def stock(components: Components, tiny_folder: Path) -> Stock:
    """Stock diffusers on the device, in the type of `components`."""
    return Stock(tiny_folder, DEVICE, components.dtype)


@pytest.mark.parametrize("name", SCHEDULER_NAMES)
def test_every_sampler_draws_what_stock_diffusers_draws(components, stock, name):
    request = Request(**vars(TWO) | {"scheduler": name})
    ours = generate(components, request).images
    theirs = stock.draw(request, width=80, height=64)
    for a, b in zip(ours, theirs, strict=True):
        assert psnr(a, b) >= ALIKE[components.dtype]
    assert psnr(ours[0], theirs[1]) < 20


@pytest.mark.parametrize("name", SCHEDULER_NAMES)
def test_every_sampler_draws_what_the_cpu_draws(components, on_cpu, name):
    request = Request(**vars(TWO) | {"scheduler": name, "num_outputs": 1})
    (ours,), (theirs,) = (generate(each, request).images for each in (components, on_cpu))
    assert psnr(ours, theirs) >= ALIKE[components.dtype]


def test_a_picture_is_encoded_as_stock_diffusers_does(components, stock, photo):
    if components.dtype.itemsize == 2:
        pytest.skip("in float16 stock diffusers draws other noise for the encoding")
    request = Request(**vars(TWO) | FROM_PHOTO | {"image": photo})
    ours = generate(components, request).images
    theirs = stock.draw(request, StableDiffusionImg2ImgPipeline, image=photo, strength=1, num_inference_steps=5)
    for a, b in zip(ours, theirs, strict=True):
        assert psnr(a, b) >= ALIKE[components.dtype]


def test_an_inpainted_picture_is_that_of_the_cpu(components, on_cpu, photo, mask):
    request = Request(**vars(TWO) | FROM_PHOTO | {"image": photo, "mask": mask, "num_outputs": 1})
    (ours,), (theirs,) = (generate(each, request).images for each in (components, on_cpu))
    assert psnr(ours, theirs) >= ALIKE[components.dtype]
