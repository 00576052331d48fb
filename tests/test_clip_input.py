"""The input of CLIP's encoder is the same as transformers' image processor makes with Pillow."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from PIL import Image
from transformers import CLIPImageProcessorPil

from jsd.clip_input import clip_input, resize, stands_in

SIZES = [(64, 64), (256, 256), (80, 64), (224, 300), (225, 224), (64, 1024), (512, 768), (512, 256)]


def pictures(height, width):
    """Noise, and black and white stripes, whose edges a cubic filter overshoots."""
    noise = np.random.default_rng(0).integers(0, 256, (height, width, 3), dtype=np.uint8)
    stripes = (np.indices((height, width)).sum(0) // 7 % 2 * 255)[..., None].repeat(3, -1).astype(np.uint8)
    return np.stack([noise, stripes])


@pytest.mark.parametrize(("height", "width"), SIZES)
@pytest.mark.parametrize("short", [32, 224])
def test_a_picture_is_resized_to_the_bit_as_pillow_does(height, width, short):
    before, scale = pictures(height, width), short / min(height, width)
    to = int(height * scale), int(width * scale)
    for ours, picture in zip(resize(torch.from_numpy(before), *to).numpy(), before, strict=True):
        theirs = Image.fromarray(picture).resize(to[::-1], Image.Resampling.BICUBIC)
        assert (ours == np.asarray(theirs)).all()


@pytest.mark.parametrize(("height", "width"), SIZES)
def test_the_input_is_that_of_the_image_processor(height, width, components):
    for processor in (CLIPImageProcessorPil(), components.image_processor):
        assert stands_in(processor, height, width)
        before = pictures(height, width)
        theirs = processor(images=list(before), return_tensors="pt").pixel_values
        ours = clip_input(processor, torch.from_numpy(before))
        assert ours.shape == theirs.shape
        assert (ours - theirs).abs().max() < 1e-6


@pytest.mark.parametrize(
    "settings", [{"do_center_crop": False}, {"resample": 2}, {"size": {"height": 224, "width": 224}}], ids=str
)
def test_another_processor_is_left_to_transformers(settings):
    assert not stands_in(CLIPImageProcessorPil(**settings), 256, 256)


def test_high_pictures_are_left_to_pillow():
    assert not stands_in(CLIPImageProcessorPil(), 1024, 448)
