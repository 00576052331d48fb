"""Pixels on a GPU: the watermark, the input of the checker, and the autoencoder where float16 overflows."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
import torch
from PIL import Image
from transformers import CLIPImageProcessorPil

from jsd import safety, vae, watermark
from jsd.clip_input import clip_input, resize
from tests.fakes import overflowing, psnr
from tests.gpu.conftest import DEVICE


def pictures(height, width):
    """Smooth colours, noise, white and black: uint8 (4, height, width, 3), on the CPU."""
    rng = np.random.default_rng(0)
    cells = Image.fromarray(rng.integers(0, 256, (5, 7, 3), np.uint8)).resize((width, height), Image.Resampling.BICUBIC)
    noise = rng.integers(0, 256, (height, width, 3), np.uint8)
    return torch.from_numpy(np.stack([np.array(cells), noise, np.full_like(noise, 255), np.zeros_like(noise)]))


@pytest.mark.parametrize(("height", "width"), [(256, 256), (512, 768), (264, 300)])
def test_the_watermark_is_that_of_the_cpu(height, width):
    """Both compute it in float64 and round it to levels. Only a value between two levels may fall to the other one."""
    before = pictures(height, width)
    ours, theirs = watermark.mark(before.to(DEVICE)), watermark.mark(before)
    assert ours.device.type == DEVICE.type
    difference = (ours.cpu().int() - theirs.int()).abs()
    assert difference.max() <= 1
    assert difference.float().mean() <= 1e-4
    for picture in ours.cpu().numpy():
        assert watermark.detect(Image.fromarray(picture)).marked


@pytest.mark.parametrize(("height", "width"), [(256, 256), (300, 224), (768, 512), (1024, 1024)])
def test_a_picture_is_resized_to_the_bit_as_on_the_cpu(height, width):
    before = pictures(height, width)
    assert torch.equal(resize(before.to(DEVICE), 224, 230).cpu(), resize(before, 224, 230))


@pytest.mark.parametrize(("height", "width"), [(256, 256), (300, 224), (512, 768)])
def test_the_checkers_input_is_that_of_the_image_processor(height, width):
    processor, before = CLIPImageProcessorPil(), pictures(height, width)
    theirs = processor(images=list(before.numpy()), return_tensors="pt").pixel_values
    ours = clip_input(processor, before.to(DEVICE))
    assert ours.device.type == DEVICE.type
    assert (ours.cpu() - theirs).abs().max() < 1e-6


@pytest.mark.parametrize(("height", "width"), [(64, 64), (256, 96)])
def test_the_checker_judges_pictures_where_they_lie(components, height, width):
    before = pictures(height, width).to(DEVICE)
    assert safety.check(components.safety_checker, components.image_processor, before) == [False] * 4
    strict = components.safety_checker
    kept = strict.concept_embeds_weights.data.clone()
    try:
        strict.concept_embeds_weights.data.fill_(-2)  # every cosine is above
        assert safety.check(strict, components.image_processor, before) == [True] * 4
    finally:
        strict.concept_embeds_weights.data.copy_(kept)


@pytest.mark.parametrize("what", ["decode", "encode"])
def test_what_overflows_in_float16_is_computed_again_in_float32(components, on_cpu, photo, what):
    half = overflowing(replace(components, dtype=torch.float16))
    full = overflowing(on_cpu)
    if what == "encode":
        ours, theirs = (vae.encode(each, photo).mean.cpu() for each in (half, full))
        assert torch.allclose(ours, theirs, atol=1e-3)
    else:
        z = torch.randn(2, 4, 4, 5, generator=torch.Generator().manual_seed(0))
        with torch.no_grad():
            assert not half.vae.decode(z.to(DEVICE, torch.float16)).sample.isfinite().all()
        ours, theirs = (vae.decode(each, z.to(each.device)).cpu() for each in (half, full))
        assert psnr(ours, theirs) >= 50
    assert {value.dtype for value in half.vae.parameters()} == {torch.float16}
