"""The denoising loop: every input reaches the picture, and a picture does not depend on those drawn with it."""

from __future__ import annotations

import copy
from dataclasses import replace
from types import SimpleNamespace

import pytest
import torch

from jsd import sampling, watermark
from jsd.errors import NaNError, NSFWError
from jsd.request import SCHEDULER_NAMES, Request
from jsd.sampling import generate, prepare, step
from jsd.vae import decode
from tests.fakes import CELL, SpyUNet, psnr

CAT = Request("猫の肖像画 油絵", seed=7)


def test_the_same_seed_gives_the_same_picture_bit_for_bit(components):
    a, b = (generate(components, CAT).images[0] for _ in range(2))
    assert a.tobytes() == b.tobytes()


@pytest.mark.parametrize(
    "change", [{"seed": 8}, {"prompt": "富士山"}, {"negative_prompt": "白黒"}, {"guidance_scale": 9.0}], ids=str
)
def test_every_input_changes_the_picture(components, change):
    assert psnr(generate(components, CAT).images[0], generate(components, replace(CAT, **change)).images[0]) < 45


@pytest.mark.parametrize("name", SCHEDULER_NAMES)
def test_picture_i_is_the_picture_of_seed_plus_i(components, name):
    together = generate(components, replace(CAT, num_outputs=3, scheduler=name))
    assert together.seeds == [7, 8, 9]
    for seed, image in zip(together.seeds, together.images, strict=True):
        alone = generate(components, replace(CAT, seed=seed, scheduler=name)).images[0]
        assert psnr(image, alone) >= 50


def test_different_jobs_share_one_unet_call_and_draw_as_if_alone(components, spied):
    """One batch has every scheduler, three numbers of steps, and jobs with and without guidance."""
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
    rows = sum(job.rows for job in jobs)
    while running := [job for job in jobs if not job.finished]:
        step(spied, running)
    assert spied.unet.calls[0] == rows
    assert len(spied.unet.calls) == max(job.total for job in jobs)
    for job, request in zip(jobs, requests, strict=True):
        alone = generate(components, request).images[0]
        assert psnr(sampling.finish(components, job).images[0], alone) >= 50


def test_a_row_limit_splits_the_call_and_not_the_picture(components, spied):
    request = replace(CAT, num_outputs=4)
    job = prepare(spied, request)
    while not job.finished:
        step(spied, [job], max_rows=3)
    assert spied.unet.calls[:3] == [3, 3, 2]
    for a, b in zip(sampling.finish(spied, job).images, generate(components, request).images, strict=True):
        assert psnr(a, b) >= 50


def test_a_picture_without_guidance_costs_one_row(spied):
    generate(spied, replace(CAT, guidance_scale=1))
    assert set(spied.unet.calls) == {1}


def test_guidance_costs_a_row_only_inside_its_interval(spied, components):
    request = replace(CAT, scheduler="DDIM", num_inference_steps=8, guidance_interval=(0.3, 0.7))
    timesteps = prepare(spied, request).schedule.timesteps
    expected = [2 if 300 <= t <= 700 else 1 for t in timesteps]
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


def test_a_model_can_have_its_own_guidance_interval(components, spied):
    defaults = replace(spied.defaults, guidance_interval=[0.7, 1])
    generate(replace(spied, defaults=defaults), replace(CAT, scheduler="DDIM", num_inference_steps=4))
    assert spied.unet.calls == [2, 1, 1, 1]
    spied.unet.calls.clear()
    generate(spied, replace(CAT, scheduler="DDIM", num_inference_steps=4))
    assert spied.unet.calls == [2, 2, 2, 2]


def test_each_picture_has_start_latents_from_its_own_seed(components):
    job = prepare(components, replace(CAT, num_outputs=2, scheduler="DDIM"))
    shape = (1, 4, 64 // CELL, 64 // CELL)
    drawn = [torch.randn(shape, generator=torch.Generator().manual_seed(seed)) for seed in (7, 8)]
    assert torch.equal(job.x_t, torch.cat(drawn))


def test_the_result_says_what_was_drawn(components):
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


def test_nan_latents_are_an_error_and_not_a_black_picture(components):
    class NaNUNet(SpyUNet):
        def __call__(self, *args, **kwargs):
            return (super().__call__(*args, **kwargs)[0] * float("nan"),)

    with pytest.raises(NaNError, match="latents"):
        generate(replace(components, unet=NaNUNet(components.unet)), CAT)


def test_nan_pixels_are_an_error_and_not_a_black_picture(components, monkeypatch):
    decode = components.vae.decode
    monkeypatch.setattr(components.vae, "decode", lambda *a, **k: (decode(*a, **k)[0] * float("inf"),))
    with pytest.raises(NaNError, match="pixels"):
        generate(components, CAT)


def test_a_flagged_picture_is_left_out_with_its_seed(components, monkeypatch):
    monkeypatch.setattr("jsd.safety.check", lambda checker, processor, images: [False, True, False])
    result = generate(components, replace(CAT, num_outputs=3))
    assert result.seeds == [7, 9]
    assert len(result.images) == 2
    assert result.flagged == 1


def test_the_real_checker_can_flag_every_picture_which_is_an_error(components):
    checker = copy.deepcopy(components.safety_checker)
    checker.concept_embeds_weights.fill_(-2)  # the thresholds, below any cosine
    with pytest.raises(NSFWError, match="NSFW content detected"):
        generate(replace(components, safety_checker=checker), replace(CAT, num_outputs=2))


def test_an_error_of_the_checker_fails_the_request(components, monkeypatch):
    def fail(*args):
        raise RuntimeError("the checker is out of order")

    monkeypatch.setattr("jsd.safety.check", fail)
    with pytest.raises(RuntimeError, match="out of order"):
        generate(components, CAT)


def test_every_picture_gets_the_watermark(components, monkeypatch):
    monkeypatch.setattr(watermark, "mark", lambda pixels: pixels.flip(1, 2))
    plain = generate(components, CAT).images[0]
    monkeypatch.undo()
    assert plain.tobytes() == generate(components, CAT).images[0].rotate(180).tobytes()


def test_the_scaling_factor_of_the_autoencoder_is_undone(components):
    z = torch.randn(1, 4, 4, 4, generator=torch.Generator().manual_seed(0))
    vae = components.vae
    half = SimpleNamespace(config=SimpleNamespace(scaling_factor=0.5), decode=vae.decode, dtype=vae.dtype)
    (plain,) = decode(components, z * components.vae.config.scaling_factor)
    assert psnr(decode(replace(components, vae=half), z * 0.5)[0], plain) >= 50


def test_half_precision_samples_in_float32(components, monkeypatch):
    """Only the networks compute in half precision. The latents are float32."""
    seen = []

    class Half(SpyUNet):
        def __call__(self, x, t, context, return_dict):
            seen.append(x.dtype)
            return (self.unet(x.float(), t, context.float(), return_dict=False)[0].to(x.dtype),)

    half = replace(components, unet=Half(components.unet), dtype=torch.bfloat16)
    job = prepare(half, CAT)
    step(half, [job])
    assert set(seen) == {torch.bfloat16}
    assert job.x_t.dtype == torch.float32


def test_memory_that_is_short_takes_smaller_unet_calls(spied):
    request = replace(CAT, num_outputs=4, num_inference_steps=4)
    expected = generate(spied, request).images
    unet, calls = spied.unet, []

    def small(x, *args, **kwargs):
        calls.append(len(x))
        if len(x) > 3:
            raise torch.OutOfMemoryError("CUDA out of memory")
        return unet(x, *args, **kwargs)

    small.config = unet.config
    images = generate(replace(spied, unet=small), request).images
    assert calls == [8, 4] + [2, 2, 2, 2] * 4
    assert all(psnr(image, other) >= 50 for image, other in zip(images, expected, strict=True))


def test_a_step_that_fails_and_is_repeated_draws_the_same_noise(components, photo, mask, monkeypatch):
    request = replace(CAT, image=photo, mask=mask, scheduler="K_EULER_ANCESTRAL", prompt_strength=0.9)
    expected = generate(components, request).images[0]
    job, blend = prepare(components, request), sampling.blend
    monkeypatch.setattr(sampling, "blend", lambda *_: 1 / 0)
    with pytest.raises(ZeroDivisionError):
        step(components, [job])
    monkeypatch.setattr(sampling, "blend", blend)
    while not job.finished:
        step(components, [job])
    assert psnr(sampling.finish(components, job).images[0], expected) >= 50
