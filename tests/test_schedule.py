"""A schedule's numbers take the steps that the scheduler of diffusers takes."""

from __future__ import annotations

import pytest
import torch

from jsd.errors import InputError
from jsd.request import SCHEDULER_NAMES
from jsd.schedule import ROWS, advance, make_schedule
from jsd.schedulers import make_scheduler, set_timesteps, takes_generator
from tests.fakes import MODEL_NOISE


def denoise(x, t):
    """A stand-in for a UNet. Unlike a sampler it is not linear."""
    mix = torch.randn(16, 16, generator=torch.Generator().manual_seed(2)) / 4
    return torch.tanh(x.flatten(2) @ mix + float(t) / 1000).view_as(x)


@pytest.mark.parametrize("prediction_type", ["epsilon", "v_prediction"])
@pytest.mark.parametrize(
    ("steps", "strength", "taken", "levels"),
    [(1, 1.0, 1, None), (7, 1.0, 7, None), (30, 1.0, 30, None), (10, 0.55, 6, 552), (20, 0.05, 4, 48), (3, 0.1, 3, 99)],
)
@pytest.mark.parametrize("name", SCHEDULER_NAMES)
def test_a_schedule_takes_the_steps_of_its_scheduler(name, steps, strength, taken, levels, prediction_type):
    config = {**MODEL_NOISE, "prediction_type": prediction_type}
    schedule = make_schedule(name, config, steps, strength)
    if name == "LCM" and strength <= 0.1:
        taken, levels = 1, round(1000 * strength)
    scheduler = make_scheduler(name, config, levels)
    set_timesteps(scheduler, taken)
    assert schedule.timesteps == tuple(scheduler.timesteps.tolist())
    x_t = torch.randn(2, 4, 4, 4, generator=torch.Generator().manual_seed(1)) * schedule.init_noise_sigma
    state = torch.zeros(2, ROWS, 4, 4, 4)
    state[:, 0] = x_t
    own, theirs = (torch.Generator().manual_seed(3) for _ in range(2))
    noise = {"generator": theirs} if takes_generator(scheduler) else {}
    for k, t in enumerate(scheduler.timesteps):
        x = scheduler.scale_model_input(x_t, t)
        assert torch.allclose(state[:, 0] * schedule.steps[k, -1], x, atol=1e-3)
        signal, sigma = schedule.noised[k]
        clean, drawn = torch.ones(1, 1, 1, 1), torch.full((1, 1, 1, 1), 0.5)
        assert scheduler.add_noise(clean, drawn, t[None]).item() == pytest.approx(signal + sigma / 2, rel=1e-5)
        x_t = scheduler.step(denoise(x, t), t, x_t, return_dict=False, **noise)[0]
        eps = denoise(state[:, 0] * schedule.steps[k, -1], schedule.steps[k, -2])
        state = advance(schedule.steps[k, :-2].expand(2, -1), state, eps)
        if schedule.noise[k]:
            state[:, 0] += schedule.noise[k] * torch.randn(x_t.shape, generator=own)
    assert (state[:, 0] - x_t).abs().max() <= 1e-4 * x_t.abs().max()


@pytest.mark.parametrize("name", SCHEDULER_NAMES)
def test_an_image_starts_at_the_noise_level_that_prompt_strength_names(name):
    for steps in (1, 4, 8, 50):
        for strength in (0.01, 0.05, 0.3, 0.77, 0.99):
            schedule = make_schedule(name, MODEL_NOISE, steps, strength)
            assert schedule.timesteps[0] == pytest.approx(1000 * strength - 1, abs=10)


@pytest.mark.parametrize("name", ["DDIM", "PNDM", "K_LMS", "UNI_PC"])
def test_no_strength_makes_a_step_too_many(name):
    """diffusers rounds the timesteps of some schedules so that they end with one below 0."""
    for steps in (20, 50):
        for hundredth in (1, 5, 29, 37, 50, 61, 67, 99):
            timesteps = make_schedule(name, MODEL_NOISE, steps, hundredth / 100).timesteps
            assert min(timesteps) >= 0
            assert len(timesteps) == max(-(-steps * hundredth // 100), 4) + (name == "PNDM")


@pytest.mark.parametrize("name", SCHEDULER_NAMES)
@pytest.mark.parametrize("strength", [1e-9, 0.0005, 0.003, 0.9996, 0.999999])
def test_the_ends_of_the_range_can_be_sampled(name, strength):
    configs = [MODEL_NOISE, {**MODEL_NOISE, "num_train_timesteps": 50}, {**MODEL_NOISE, "sigma_max": 14.0}]
    if name not in ("K_LMS", "K_HEUN", "PNDM"):
        configs.append({**MODEL_NOISE, "rescale_betas_zero_snr": True})
    for config in configs:
        schedule = make_schedule(name, config, 8, strength)
        assert schedule.steps.isfinite().all()
        assert (schedule.noised[0][0] == 1) == name.startswith(("K_EULER", "K_HEUN", "K_LMS"))


def test_no_strength_means_no_steps():
    assert make_schedule("DDIM", MODEL_NOISE, 50, 0.0).timesteps == ()


def test_a_wrong_sampler_for_the_models_noise_is_refused():
    with pytest.raises(InputError, match="rescale_betas_zero_snr"):
        make_schedule("K_LMS", {**MODEL_NOISE, "rescale_betas_zero_snr": True}, 4)
    assert make_schedule("DDIM", {**MODEL_NOISE, "rescale_betas_zero_snr": True}, 4, 0.5).steps.isfinite().all()


def test_latents_are_never_clipped():
    config = {**MODEL_NOISE, "clip_sample": True, "thresholding": True}
    assert torch.equal(make_schedule("DDIM", config, 8).steps, make_schedule("DDIM", MODEL_NOISE, 8).steps)
