"""What users of diffusers add to a pipeline has the same effect on ours: the same picture as on stock's."""

from __future__ import annotations

import copy

import numpy as np
import pytest
import torch
from diffusers import StableDiffusionImg2ImgPipeline, StableDiffusionInpaintPipeline, StableDiffusionPipeline
from diffusers.callbacks import SDCFGCutoffCallback
from PIL import Image

import jsd
from tests.adapters import diffusers, write

PHOTO = Image.fromarray(np.random.default_rng(3).integers(0, 256, (4, 4, 3), np.uint8)).resize((64, 64))
MASK = Image.new("L", (64, 64))
MASK.paste(255, (32, 0, 64, 64))
KINDS = {
    "text": (jsd.JapaneseStableDiffusionPipeline, StableDiffusionPipeline, {}),
    "change": (jsd.JapaneseStableDiffusionImg2ImgPipeline, StableDiffusionImg2ImgPipeline, {"image": PHOTO}),
    "repaint": (
        jsd.JapaneseStableDiffusionInpaintPipeline,
        StableDiffusionInpaintPipeline,
        {"image": PHOTO, "mask_image": MASK, "strength": 0.9},
    ),
}


def draw(pipe, **inputs):
    """The pixels of a picture."""
    pipe.set_progress_bar_config(disable=True)
    settings = {"num_inference_steps": 4, "guidance_scale": 2.0, "generator": torch.Generator().manual_seed(7)}
    return pipe("猫", output_type="np", **{**settings, **inputs}).images[0]


def stop(pipe, step, t, tensors):
    """Interrupt a call after its second step."""
    pipe._interrupt = step == 1
    return tensors


def adapters(pipe, folder):
    """Load two adapters."""
    for seed, name in enumerate(("one", "two")):
        torch.manual_seed(seed)
        file = write(folder / f"{name}.safetensors", diffusers(pipe, ".lora_A .lora_B", ""))
        pipe.load_lora_weights(folder, weight_name=file.name, adapter_name=name)


def weighted(pipe, folder):
    adapters(pipe, folder)
    pipe.set_adapters(["one", "two"], [0.3, -0.8])


def fused(pipe, folder):
    weighted(pipe, folder)
    pipe.fuse_lora()
    pipe.unload_lora_weights()


def scaled(pipe, folder):
    adapters(pipe, folder)
    pipe.set_adapters("two")


# name: (what is done to a pipeline, the arguments of its call)
FEATURES = {
    "a callback that interrupts": (None, {"callback_on_step_end": stop}),
    "a callback of diffusers": (None, {"callback_on_step_end": SDCFGCutoffCallback(cutoff_step_ratio=0.5)}),
    "adapters with weights": (weighted, {}),
    "fuse_lora": (fused, {}),
    "cross_attention_kwargs": (scaled, {"cross_attention_kwargs": {"scale": 0.5}}),
    "offloading": (lambda pipe, _: pipe.enable_model_cpu_offload(device="cpu"), {}),
    "FreeU": (lambda pipe, _: pipe.enable_freeu(s1=0.9, s2=0.2, b1=1.2, b2=1.4), {}),
    "a tiled autoencoder": (lambda pipe, _: pipe.vae.enable_tiling(), {}),
    "a sliced autoencoder": (lambda pipe, _: pipe.vae.enable_slicing(), {"num_images_per_prompt": 2}),
    "fused projections": (lambda pipe, _: pipe.fuse_qkv_projections(), {}),
}


@pytest.fixture(scope="module")
def parts(tiny_folder):
    return jsd.JapaneseStableDiffusionPipeline.from_pretrained(tiny_folder).components


@pytest.mark.parametrize("feature", FEATURES)
def test_it_has_the_effect_that_it_has_in_diffusers(parts, tmp_path, feature):
    ours, stock, inputs = KINDS["change" if feature == "a tiled autoencoder" else "repaint"]
    prepare, arguments = FEATURES[feature]
    drawn = []
    for pipeline in (ours, stock):
        pipe = pipeline(**copy.deepcopy(parts))
        if prepare:
            prepare(pipe, tmp_path)
        drawn.append(draw(pipe, **inputs, **arguments))
    assert np.array_equal(*drawn)
    if feature not in ("offloading", "a sliced autoencoder", "fused projections"):
        assert not np.array_equal(drawn[0], draw(ours(**copy.deepcopy(parts)), **inputs))


@pytest.mark.parametrize("kind", KINDS)
def test_every_pipeline_draws_as_diffusers_does_and_stops_when_it_is_told(parts, kind):
    ours, stock, inputs = KINDS[kind]
    for arguments in ({}, {"callback_on_step_end": stop}):
        drawn = [draw(pipeline(**parts), **inputs, **arguments) for pipeline in (ours, stock)]
        assert np.array_equal(*drawn)
