"""The denoising loop draws what stock diffusers draws, and a picture does not depend on its company."""

from __future__ import annotations

import copy
import importlib
from dataclasses import replace
from types import SimpleNamespace

import pytest
import torch
from diffusers import (
    DDIMScheduler,
    DPMSolverMultistepScheduler,
    EulerAncestralDiscreteScheduler,
    EulerDiscreteScheduler,
    HeunDiscreteScheduler,
    LCMScheduler,
    LMSDiscreteScheduler,
    PNDMScheduler,
    StableDiffusionPipeline,
    UniPCMultistepScheduler,
)

from jsd import sampling
from jsd.errors import NaNError, NSFWError
from jsd.request import SCHEDULER_NAMES, Request
from jsd.sampling import generate, prepare, step
from jsd.vae import decode
from tests.fakes import CELL, SpyUNet, psnr

# Spelled out here, from the diffusers documentation's table of samplers, and not taken from the code under test.
STOCK = {
    "DDIM": (DDIMScheduler, {}),
    "K_LMS": (LMSDiscreteScheduler, {}),
    "PNDM": (PNDMScheduler, {"skip_prk_steps": True}),
    "K_EULER": (EulerDiscreteScheduler, {}),
    "K_EULER_ANCESTRAL": (EulerAncestralDiscreteScheduler, {}),
    "K_HEUN": (HeunDiscreteScheduler, {}),
    "DPM_SOLVER_PP_2M_KARRAS": (DPMSolverMultistepScheduler, {"use_karras_sigmas": True}),
    "UNI_PC": (UniPCMultistepScheduler, {}),
    "LCM": (LCMScheduler, {}),
}
CAT = Request("猫の肖像画 油絵", seed=7)


@pytest.fixture(scope="module")
def stock(tiny_folder):
    pipeline = StableDiffusionPipeline.from_pretrained(tiny_folder, local_files_only=True, dtype=torch.float32)
    pipeline.set_progress_bar_config(disable=True)
    pipeline.own_config = dict(pipeline.scheduler.config)  # else one sampler's settings leak into the next
    return pipeline


def draw_stock(pipeline, request, name):
    scheduler_class, arguments = STOCK[name]
    pipeline.scheduler = scheduler_class.from_config(pipeline.own_config, **arguments)
    return pipeline(
        request.prompt,
        negative_prompt=request.negative_prompt,
        width=request.width,
        height=request.height,
        num_inference_steps=request.num_inference_steps,
        guidance_scale=request.guidance_scale,
        num_images_per_prompt=request.num_outputs,
        generator=[torch.Generator().manual_seed(request.seed + i) for i in range(request.num_outputs)],
    ).images


@pytest.mark.parametrize("name", SCHEDULER_NAMES)
def test_the_loop_draws_what_stock_diffusers_draws(components, stock, name):
    request = Request(
        "富士山 水彩画", "白黒", width=80, height=64, num_outputs=2, num_inference_steps=6, guidance_scale=3.0, seed=11,
        scheduler=name,
    )  # fmt: skip
    ours, theirs = generate(components, request).images, draw_stock(stock, request, name)
    assert [image.size for image in ours] == [(80, 64)] * 2
    for a, b in zip(ours, theirs, strict=True):
        assert psnr(a, b) >= 50
    assert psnr(ours[0], theirs[1]) < 30  # the figure above tells pictures apart


def test_the_loop_draws_what_stock_diffusers_draws_without_guidance(components, stock):
    request = Request("天狗", width=64, height=64, num_inference_steps=4, guidance_scale=1, seed=0, scheduler="DDIM")
    assert psnr(generate(components, request).images[0], draw_stock(stock, request, "DDIM")[0]) >= 50


def test_the_same_seed_is_the_same_picture_bit_for_bit(components):
    a, b = (generate(components, CAT).images[0] for _ in range(2))
    assert a.tobytes() == b.tobytes()


@pytest.mark.parametrize(
    "change", [{"seed": 8}, {"prompt": "富士山"}, {"negative_prompt": "白黒"}, {"guidance_scale": 9.0}], ids=str
)
def test_everything_asked_for_reaches_the_picture(components, change):
    assert psnr(generate(components, CAT).images[0], generate(components, replace(CAT, **change)).images[0]) < 45


@pytest.mark.parametrize("name", SCHEDULER_NAMES)
def test_image_i_is_the_picture_of_seed_plus_i(components, name):
    together = generate(components, replace(CAT, num_outputs=3, scheduler=name))
    assert together.seeds == [7, 8, 9]
    for seed, image in zip(together.seeds, together.images, strict=True):
        alone = generate(components, replace(CAT, seed=seed, scheduler=name)).images[0]
        assert psnr(image, alone) >= 50


def test_jobs_of_any_kind_share_one_unet_call(components, spied):
    """Every scheduler, three step counts, with and without guidance, in one batch: each draws as if alone."""
    requests = [
        replace(
            CAT,
            scheduler=name,
            num_inference_steps=3 + i % 3,
            guidance_scale=1.0 + i % 4,
            guidance_interval=(0.2 * (i % 2), 0.9),
            seed=i,
            prompt=f"猫{i}",
        )
        for i, name in enumerate(SCHEDULER_NAMES)
    ]
    jobs = [prepare(spied, request) for request in requests]
    rows = sum(len(job.next_context) for job in jobs)
    while running := [job for job in jobs if not job.finished]:
        step(spied, running)
    assert spied.unet.calls[0] == rows
    assert len(spied.unet.calls) == max(job.total for job in jobs)
    for job, request in zip(jobs, requests, strict=True):
        alone = generate(components, request).images[0]
        assert psnr(sampling.finish(components, job).images[0], alone) >= 50


def test_a_row_limit_splits_the_call_and_changes_nothing(components, spied):
    request = replace(CAT, num_outputs=4)
    job = prepare(spied, request)
    while not job.finished:
        step(spied, [job], max_rows=3)
    assert spied.unet.calls[:3] == [3, 3, 2]
    for a, b in zip(sampling.finish(spied, job).images, generate(components, request).images, strict=True):
        assert psnr(a, b) >= 50


def test_no_guidance_costs_one_row(spied):
    generate(spied, replace(CAT, guidance_scale=1))
    assert set(spied.unet.calls) == {1}


def test_guidance_costs_its_row_only_at_the_noise_levels_it_is_wanted_at(spied, components):
    request = replace(CAT, scheduler="DDIM", num_inference_steps=8, guidance_interval=(0.3, 0.7))
    timesteps = prepare(spied, request).timesteps / 1000
    expected = [2 if 0.3 <= t <= 0.7 else 1 for t in timesteps.tolist()]
    result = generate(spied, request)
    assert spied.unet.calls == expected
    assert {1, 2} == set(expected)
    assert result.batch_rows == sum(expected) / 8
    everywhere = generate(components, replace(request, guidance_interval=(0, 1))).images[0]
    nowhere = generate(components, replace(request, guidance_interval=(0, 0))).images[0]
    assert nowhere.tobytes() == generate(components, replace(request, guidance_scale=1)).images[0].tobytes()
    assert everywhere.tobytes() == generate(components, replace(request, guidance_interval=None)).images[0].tobytes()
    assert psnr(result.images[0], everywhere) < 45
    assert psnr(result.images[0], nowhere) < 45


def test_a_model_may_bring_its_own_guidance_interval(components, spied):
    defaults = replace(spied.defaults, guidance_interval=[0.9, 1])
    generate(replace(spied, defaults=defaults), replace(CAT, scheduler="DDIM", num_inference_steps=4))
    assert spied.unet.calls == [2, 1, 1, 1] or spied.unet.calls == [1, 1, 1, 1]
    spied.unet.calls.clear()
    generate(spied, replace(CAT, scheduler="DDIM", num_inference_steps=4))
    assert spied.unet.calls == [2, 2, 2, 2]


def test_the_start_latents_are_drawn_image_by_image_from_the_seed(components):
    job = prepare(components, replace(CAT, num_outputs=2, scheduler="DDIM"))
    shape = (1, 4, 64 // CELL, 64 // CELL)
    drawn = [torch.randn(shape, generator=torch.Generator().manual_seed(seed)) for seed in (7, 8)]
    assert torch.equal(job.x_t, torch.cat(drawn))


def test_the_result_tells_what_was_done(components):
    seen = []
    request = Request("猫" * 100, seed=3, negative_prompt="犬")
    result = generate(components, request, progress=lambda done, total: seen.append((done, total)))
    assert seen == [(1, 4), (2, 4), (3, 4), (4, 4)]
    assert result.request == request.resolve(components.defaults)
    assert result.model == "tiny"
    assert result.tokens == components.tokenizer.max_length - 1
    assert result.truncated == components.tokenizer("猫" * 100).dropped > 0
    assert set(result.timings) == {"queue", "text", "denoise", "decode", "safety"}
    assert result.timings["queue"] == 0
    assert all(result.timings[part] > 0 for part in ("text", "denoise", "decode", "safety"))


def test_nan_latents_are_an_error_not_a_black_image(components):
    class NaNUNet(SpyUNet):
        def __call__(self, *args, **kwargs):
            return (super().__call__(*args, **kwargs)[0] * float("nan"),)

    with pytest.raises(NaNError, match="latents"):
        generate(replace(components, unet=NaNUNet(components.unet)), CAT)


def test_nan_pixels_are_an_error_not_a_black_image(components, monkeypatch):
    decode = components.vae.decode
    monkeypatch.setattr(components.vae, "decode", lambda *a, **k: (decode(*a, **k)[0] * float("inf"),))
    with pytest.raises(NaNError, match="pixels"):
        generate(components, CAT)


def test_a_flagged_image_is_left_out_with_its_seed(components, monkeypatch):
    monkeypatch.setattr("jsd.safety.check", lambda checker, processor, images: [False, True, False])
    result = generate(components, replace(CAT, num_outputs=3))
    assert result.seeds == [7, 9]
    assert len(result.images) == 2
    assert result.flagged == 1


def test_all_flagged_is_an_error_by_the_real_checker(components):
    checker = copy.deepcopy(components.safety_checker)
    checker.concept_embeds_weights.fill_(-2)  # the thresholds: below any cosine
    with pytest.raises(NSFWError, match="NSFW content detected"):
        generate(replace(components, safety_checker=checker), replace(CAT, num_outputs=2))


def test_a_checker_that_fails_fails_the_request(components, monkeypatch):
    def fail(*args):
        raise RuntimeError("the checker is out of order")

    monkeypatch.setattr("jsd.safety.check", fail)
    with pytest.raises(RuntimeError, match="out of order"):
        generate(components, CAT)


def test_pictures_are_marked(components, monkeypatch):
    watermark = importlib.import_module("jsd.watermark")
    monkeypatch.setattr(watermark, "embed", lambda image: image.rotate(180))
    plain = generate(components, CAT).images[0]
    monkeypatch.undo()
    assert plain.tobytes() == generate(components, CAT).images[0].rotate(180).tobytes()


def test_the_vaes_own_scale_is_undone(components):
    z = torch.randn(1, 4, 4, 4, generator=torch.Generator().manual_seed(0))
    half = SimpleNamespace(config=SimpleNamespace(scaling_factor=0.5), decode=components.vae.decode)
    (plain,) = decode(components, z * components.vae.config.scaling_factor)
    assert psnr(decode(replace(components, vae=half), z * 0.5)[0], plain) >= 50


def test_half_precision_samples_in_float32(components, monkeypatch):
    """In a half-precision model only the networks' inputs and outputs are halves; latents and arithmetic are not."""
    seen = []

    class Half(SpyUNet):
        def __call__(self, x, t, context, return_dict):
            seen.append(x.dtype)
            return (self.unet(x.float(), t, context.float(), return_dict=False)[0].to(x.dtype),)

    half = replace(components, unet=Half(components.unet), dtype=torch.bfloat16)
    job = prepare(half, CAT)
    assert [eps.dtype for eps in sampling.predict(half, [job])] == [torch.float32]
    step(half, [job])
    assert set(seen) == {torch.bfloat16}
    assert job.x_t.dtype == torch.float32
