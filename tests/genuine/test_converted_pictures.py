"""The converted model draws what stock diffusers draws with the tensors of the repository."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from diffusers import (
    PNDMScheduler,
    StableDiffusionImg2ImgPipeline,
    StableDiffusionInpaintPipeline,
    StableDiffusionPipeline,
)
from PIL import Image

from jsd import model, sampling, vae
from jsd.request import Request
from tests.fakes import psnr

PROMPT, NEGATIVE, STEPS, GUIDANCE, SEED = "富士山 A CAT", "白黒", 6, 3.0, 9
PHOTO = Image.fromarray(np.random.default_rng(3).integers(0, 256, (4, 4, 3), np.uint8)).resize((64, 64))


@pytest.fixture(scope="module")
def components(converted):
    return model.load(converted)


def draw_by_hand(old, components, pipeline_class, steps=STEPS, noise=None, **inputs):
    """Draw with a stock pipeline of the repository's models and the scheduler of 2022, as diffusers documents it.

    `noise` are settings of the scheduler. Only the tokenizer is ours. test_convert.py compares it with sentencepiece.
    """
    noise = noise or {"beta_start": 0.00085, "beta_end": 0.012, "beta_schedule": "scaled_linear"}
    scheduler = PNDMScheduler(skip_prk_steps=True, steps_offset=1, **noise)
    pipeline = pipeline_class(
        vae=old.models.vae,
        text_encoder=old.models.text_encoder,
        tokenizer=None,
        unet=old.models.unet,
        scheduler=scheduler,
        safety_checker=None,
        feature_extractor=None,
        requires_safety_checker=False,
    )
    pipeline.set_progress_bar_config(disable=True)
    with torch.no_grad():
        prompt, negative = (
            old.models.text_encoder(torch.tensor([components.tokenizer(text).ids])).last_hidden_state
            for text in (PROMPT, NEGATIVE)
        )
    return pipeline(
        prompt_embeds=prompt,
        negative_prompt_embeds=negative,
        num_inference_steps=steps,
        guidance_scale=GUIDANCE,
        generator=torch.Generator().manual_seed(SEED),
        **inputs,
    ).images[0]


def draw(components, prompt=PROMPT, **inputs):
    """Draw with the converted model. No picture is put back over the decoded one, as in stock diffusers."""
    request = Request(
        prompt,
        NEGATIVE,
        num_inference_steps=STEPS,
        guidance_scale=GUIDANCE,
        scheduler="PNDM",
        seed=SEED,
        **inputs,
    )
    job = sampling.prepare(components, request)
    while not job.finished:
        sampling.step(components, [job])
    return vae.decode(components, job.x_t)[0]


def test_text_to_image_draws_the_same(old, components):
    theirs = draw_by_hand(old, components, StableDiffusionPipeline, width=64, height=64)
    assert psnr(draw(components), theirs) >= 50
    assert psnr(draw(components, "猫"), theirs) < 35


def test_image_to_image_draws_the_same(old, components):
    """Stock gets a scheduler of the noise levels below prompt_strength, over which ours spreads the steps."""
    betas = torch.linspace(0.00085**0.5, 0.012**0.5, 1000) ** 2
    noise = {"trained_betas": betas[:600].tolist(), "num_train_timesteps": 600, "timestep_spacing": "trailing"}
    theirs = draw_by_hand(old, components, StableDiffusionImg2ImgPipeline, 4, noise, image=PHOTO, strength=1)
    assert psnr(draw(components, image=PHOTO, prompt_strength=0.6), theirs) >= 50


def test_inpainting_draws_the_same(old, components):
    mask = Image.new("L", (64, 64))
    mask.paste(255, (24, 0, 64, 64))
    theirs = draw_by_hand(
        old,
        components,
        StableDiffusionInpaintPipeline,
        image=PHOTO,
        mask_image=mask,
        strength=1,
        width=64,
        height=64,
    )
    assert psnr(draw(components, image=PHOTO, mask=mask, prompt_strength=1), theirs) >= 50
