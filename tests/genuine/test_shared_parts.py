"""Pipelines that share their parts: nothing is changed in a part, so they draw at the same time, in any order."""

from __future__ import annotations

import inspect
import threading
from concurrent.futures import ThreadPoolExecutor

import numpy as np
import pytest
import torch
from diffusers import (
    AutoencoderKL,
    AutoPipelineForImage2Image,
    AutoPipelineForInpainting,
    AutoPipelineForText2Image,
    StableDiffusionImg2ImgPipeline,
    StableDiffusionInpaintPipeline,
    StableDiffusionPipeline,
    UNet2DConditionModel,
    UniPCMultistepScheduler,
)
from PIL import Image
from safetensors.torch import save_file

import jsd

TEXT = jsd.JapaneseStableDiffusionPipeline
CHANGE = jsd.JapaneseStableDiffusionImg2ImgPipeline
REPAINT = jsd.JapaneseStableDiffusionInpaintPipeline
OURS = (TEXT, CHANGE, REPAINT)
STOCK = (StableDiffusionPipeline, StableDiffusionImg2ImgPipeline, StableDiffusionInpaintPipeline)
PAIRS = list(zip(OURS, STOCK, strict=True))
PHOTO = Image.fromarray(np.random.default_rng(3).integers(0, 256, (4, 4, 3), np.uint8)).resize((64, 64))
MASK = Image.new("L", (64, 64))
MASK.paste(255, (32, 0, 64, 64))
INPUTS = {TEXT: {}, CHANGE: {"image": PHOTO, "strength": 0.7}, REPAINT: {"image": PHOTO, "mask_image": MASK}}


def draw(pipe, **inputs):
    """The pixels of a picture."""
    pipe.set_progress_bar_config(disable=True)
    settings = {"num_inference_steps": 4, "guidance_scale": 2.0, "generator": torch.Generator().manual_seed(7)}
    return pipe("猫", output_type="np", **{**INPUTS.get(type(pipe), {}), **settings, **inputs}).images[0]


@pytest.fixture(scope="module")
def narrow(tiny_folder):
    """A text to image pipeline of three latent channels, a number that diffusers refuses in inpainting."""
    torch.manual_seed(0)
    unet = UNet2DConditionModel.load_config(tiny_folder / "unet")
    vae = AutoencoderKL.load_config(tiny_folder / "vae")
    return TEXT.from_pretrained(
        tiny_folder,
        scheduler=UniPCMultistepScheduler.from_pretrained(tiny_folder / "scheduler"),  # it keeps more than others
        unet=UNet2DConditionModel.from_config(unet, in_channels=3, out_channels=3),
        vae=AutoencoderKL.from_config(vae, latent_channels=3),
    )


@pytest.mark.parametrize(
    ("first", "later"), [(TEXT, TEXT), (CHANGE, CHANGE), (TEXT, REPAINT), (REPAINT, TEXT), (REPAINT, REPAINT)]
)
def test_two_pipelines_draw_in_two_threads_at_the_same_time(narrow, first, later):
    """The later one begins when the first has made a step, and makes its last steps when the first has ended."""
    pipes = [kind(**narrow.components) for kind in (first, later)]
    wanted = [draw(pipe) for pipe in pipes]
    config = dict(narrow.unet.config)
    begun, overlap, ended = (threading.Event() for _ in range(3))

    def first_steps(pipe, step, t, tensors):
        begun.set()
        assert overlap.wait(60)
        return tensors

    def later_steps(pipe, step, t, tensors):
        overlap.set()
        assert ended.wait(60)
        return tensors

    with ThreadPoolExecutor(2) as threads:
        one = threads.submit(draw, pipes[0], callback_on_step_end=first_steps)
        one.add_done_callback(lambda _: ended.set())
        assert begun.wait(60)
        two = threads.submit(draw, pipes[1], callback_on_step_end=later_steps)
        drawn = [one.result(60), two.result(60)]
    assert dict(narrow.unet.config) == config
    for pixels, alone in zip(drawn, wanted, strict=True):
        assert np.array_equal(pixels, alone)
    assert np.array_equal(draw(pipes[1]), wanted[1])


def test_a_callback_of_inpainting_gets_a_pipeline_and_stops_it(narrow):
    pipe, steps = REPAINT(**narrow.components), []

    def callback(pipe, step, t, tensors):
        assert isinstance(pipe, REPAINT)
        assert isinstance(pipe.unet, UNet2DConditionModel)
        assert dict(pipe.unet.config) == dict(narrow.unet.config)
        steps.append(step)
        pipe._interrupt = step == 1
        return tensors

    draw(pipe, callback_on_step_end=callback)
    assert steps == [0, 1]
    assert pipe.interrupt


def test_an_ip_adapter_guides_every_pipeline_of_a_model(tiny_folder, tmp_path):
    pipe = TEXT.from_pretrained(tiny_folder)
    torch.manual_seed(0)
    width, tensors = pipe.unet.config.cross_attention_dim, {}
    tensors["image_proj.proj.weight"] = torch.randn(4 * width, 8)
    tensors["image_proj.proj.bias"] = torch.zeros(4 * width)
    tensors["image_proj.norm.weight"] = torch.ones(width)
    tensors["image_proj.norm.bias"] = torch.zeros(width)
    attentions = [name for name in pipe.unet.attn_processors if "attn2" in name]
    for i, name in enumerate(attentions):
        hidden = pipe.unet.get_submodule(name.removesuffix(".processor")).to_k.out_features
        for kind in ("k", "v"):
            tensors[f"ip_adapter.{2 * i + 1}.to_{kind}_ip.weight"] = torch.randn(hidden, width)
    save_file(tensors, tmp_path / "ip.safetensors")
    plain = {kind: draw(kind(**pipe.components)) for kind in OURS}
    pipe.load_ip_adapter(str(tmp_path), subfolder="", weight_name="ip.safetensors", image_encoder_folder=None)
    embeds = [torch.randn(2, 1, 8)]
    for ours, stock in PAIRS:
        guided = draw(ours(**pipe.components), ip_adapter_image_embeds=embeds)
        parts = {name: part for name, part in pipe.components.items() if name != "image_encoder"}
        assert np.abs(guided - plain[ours]).max() > 0.01
        assert np.array_equal(guided, draw(stock(**parts), ip_adapter_image_embeds=embeds, **INPUTS[ours]))


@pytest.mark.parametrize(("ours", "stock"), PAIRS)
def test_a_call_shows_the_arguments_of_diffusers(ours, stock):
    assert inspect.signature(ours.__call__).parameters == inspect.signature(stock.__call__).parameters
    assert ours.__call__.__doc__.startswith("Draw pictures")
    assert "num_inference_steps (`int`" in ours.__call__.__doc__


def test_the_automatic_pipelines_of_diffusers_find_ours(tiny_folder):
    pipe = TEXT.from_pretrained(tiny_folder)
    kinds = (AutoPipelineForText2Image, AutoPipelineForImage2Image, AutoPipelineForInpainting)
    for automatic, ours in zip(kinds, OURS, strict=True):
        pipe = automatic.from_pipe(pipe)
        assert type(pipe) is ours
        assert draw(pipe).shape == (64, 64, 3)


@pytest.mark.parametrize(("ours", "stock"), PAIRS)
def test_a_pipeline_becomes_one_of_diffusers_and_back(ours, stock, tiny_folder):
    pipe = TEXT.from_pretrained(tiny_folder)
    theirs = stock.from_pipe(pipe)
    back = ours.from_pipe(theirs)
    assert back.unet is theirs.unet is pipe.unet
    assert np.array_equal(draw(theirs, **INPUTS[ours]), draw(back))
