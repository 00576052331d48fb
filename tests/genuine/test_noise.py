"""A model is drawn with the noise it was trained on, whatever scheduler it is given, or not at all."""

from __future__ import annotations

import json

import numpy as np
import pytest
import torch
from diffusers import (
    DDIMScheduler,
    EDMEulerScheduler,
    EulerDiscreteScheduler,
    FlowMatchEulerDiscreteScheduler,
    LMSDiscreteScheduler,
)

import jsd
from jsd.errors import InputError, WeightsError
from jsd.genuine.convert import convert
from jsd.genuine.folder import write_manifest
from jsd.manifest import verify

PIPELINE = jsd.JapaneseStableDiffusionPipeline


def set_scheduler(folder, **settings):
    """Change the scheduler's config of a model folder."""
    file = folder / "scheduler" / "scheduler_config.json"
    file.write_text(json.dumps(json.loads(file.read_text()) | settings))


@pytest.fixture
def zero_snr(tiny_copy):
    """A model that was trained to begin at pure noise (Lin et al. 2023)."""
    set_scheduler(tiny_copy, rescale_betas_zero_snr=True, timestep_spacing="trailing", prediction_type="v_prediction")
    write_manifest(tiny_copy, name="zero", defaults={"num_inference_steps": 4, "scheduler": "DDIM"})
    return tiny_copy


def draw(pipe):
    pipe.set_progress_bar_config(disable=True)
    settings = {"num_inference_steps": 3, "generator": torch.Generator().manual_seed(7)}
    return pipe("猫", output_type="np", **settings).images[0]


def test_a_scheduler_follows_a_model_of_zero_terminal_snr(zero_snr):
    noise = {"beta_start": 0.00085, "beta_end": 0.012, "beta_schedule": "scaled_linear"}
    scheduler = EulerDiscreteScheduler(**noise, timestep_spacing="trailing")
    with pytest.warns(UserWarning, match="prediction_type='v_prediction', rescale_betas_zero_snr=True"):
        pipe = PIPELINE.from_pretrained(zero_snr, scheduler=scheduler)
    assert pipe.scheduler.config.prediction_type == "v_prediction"
    right = EulerDiscreteScheduler.from_config(DDIMScheduler.load_config(zero_snr / "scheduler"))
    assert torch.equal(pipe.scheduler.alphas_cumprod, right.alphas_cumprod)


def test_a_scheduler_that_can_not_follow_is_refused(zero_snr):
    with pytest.raises(
        InputError, match="LMSDiscreteScheduler can't sample this model, .* rescale_betas_zero_snr; take"
    ):
        PIPELINE.from_pretrained(zero_snr, scheduler=LMSDiscreteScheduler(beta_schedule="scaled_linear"))
    pipe = PIPELINE.from_pretrained(zero_snr)
    pipe.scheduler = LMSDiscreteScheduler.from_config(pipe.scheduler.config)
    with pytest.raises(InputError, match="rescale_betas_zero_snr"):
        draw(pipe)


@pytest.mark.parametrize("kind", [FlowMatchEulerDiscreteScheduler, EDMEulerScheduler])
def test_a_scheduler_of_other_noise_is_refused(tiny_folder, kind):
    with pytest.raises(InputError, match=f"{kind.__name__} can't sample this model, which was trained with beta_start"):
        PIPELINE.from_pretrained(tiny_folder, scheduler=kind())


class Own(DDIMScheduler):
    """A scheduler of a user, who hands the settings on."""

    def __init__(self, **settings):
        super().__init__(**settings)


class Around:
    """What a user puts around a scheduler."""

    def __init__(self, scheduler):
        self.scheduler = scheduler

    def __getattr__(self, name):
        return getattr(self.scheduler, name)


def test_a_users_own_scheduler_draws(tiny_folder):
    pipe = PIPELINE.from_pretrained(tiny_folder, scheduler=Own(**DDIMScheduler.load_config(tiny_folder / "scheduler")))
    wanted = draw(PIPELINE.from_pretrained(tiny_folder))
    assert np.array_equal(draw(pipe), wanted)
    pipe.scheduler = Around(pipe.scheduler)
    assert np.array_equal(draw(pipe), wanted)


def test_a_scheduler_follows_settings_that_it_was_not_given(tiny_folder):
    with pytest.warns(UserWarning, match="changed to beta_start=0.00085, .*beta_end=0.012"):
        pipe = PIPELINE.from_pretrained(tiny_folder, scheduler=DDIMScheduler(set_alpha_to_one=False, steps_offset=1))
    assert (pipe.scheduler.config.beta_start, pipe.scheduler.config.beta_end) == (0.00085, 0.012)
    own = DDIMScheduler.from_pretrained(tiny_folder / "scheduler")
    assert torch.equal(pipe.scheduler.alphas_cumprod, own.alphas_cumprod)


def test_a_scheduler_of_another_model_loses_its_noise(tiny_folder):
    own = DDIMScheduler.load_config(tiny_folder / "scheduler")
    other = DDIMScheduler.from_config(own, rescale_betas_zero_snr=True, trained_betas=np.full(1000, 0.01))
    with pytest.warns(UserWarning, match="trained_betas=None, rescale_betas_zero_snr=False"):
        pipe = PIPELINE.from_pretrained(tiny_folder, scheduler=other)
    assert torch.equal(pipe.scheduler.alphas_cumprod, DDIMScheduler.from_config(own).alphas_cumprod)


@pytest.mark.parametrize("name", ["PNDM", "EulerDiscrete"])
def test_convert_keeps_zero_terminal_snr_and_chooses_a_sampler_for_it(old_copy, tmp_path, name):
    set_scheduler(old_copy, _class_name=f"{name}Scheduler", rescale_betas_zero_snr=True)
    convert(old_copy, tmp_path / "new")
    assert DDIMScheduler.from_pretrained(tmp_path / "new" / "scheduler").alphas_cumprod[-1] < 1e-6
    assert verify(tmp_path / "new")["defaults"]["scheduler"] == "DDIM"


@pytest.mark.parametrize(
    "settings",
    [
        {"_class_name": "FlowMatchEulerDiscreteScheduler"},
        {"_class_name": "EDMEulerScheduler"},
        {"_class_name": "EDMDPMSolverMultistepScheduler"},
        {"_class_name": "DPMSolverMultistepScheduler", "use_flow_sigmas": True},
        {"_class_name": "UniPCMultistepScheduler", "prediction_type": "flow_prediction"},
    ],
)
def test_convert_refuses_noise_of_another_kind(old_copy, tmp_path, settings):
    set_scheduler(old_copy, **settings)
    with pytest.raises(
        WeightsError, match=r"scheduler_config.json: scheduler: (none here can|DDIM can't|DDIM does not)"
    ):
        convert(old_copy, tmp_path / "new")
    assert not (tmp_path / "new").exists()


def test_convert_keeps_a_model_that_predicts_the_picture(old_copy, tmp_path):
    set_scheduler(old_copy, prediction_type="sample")
    convert(old_copy, tmp_path / "new")
    assert DDIMScheduler.load_config(tmp_path / "new" / "scheduler")["prediction_type"] == "sample"
    index = json.loads((tmp_path / "new" / "model_index.json").read_text())
    assert index["scheduler"] == ["diffusers", "DDIMScheduler"]  # diffusers' PNDM does not know "sample"
