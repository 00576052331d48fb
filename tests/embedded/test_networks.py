"""The noise schedule and the sizes of the embedded model's networks."""

from types import SimpleNamespace

import pytest
import torch
from diffusers import DDPMScheduler

from embedded import networks
from jsd.schedulers import SCHEDULERS, make_scheduler


def test_the_last_timestep_is_almost_pure_noise():
    assert float(DDPMScheduler(**networks.NOISE_SCHEDULE).alphas_cumprod[-1].sqrt()) < 0.02


@pytest.mark.parametrize("name", SCHEDULERS)
def test_every_sampler_supports_the_noise_schedule(name):
    assert make_scheduler(name, networks.NOISE_SCHEDULE).config.prediction_type == "v_prediction"


def test_the_networks_have_the_sizes_that_are_documented():
    tokens = SimpleNamespace(vocabulary_size=10_000, max_length=40, pad_id=0, eos_id=1)
    with torch.device("meta"):
        models = {
            "vae": networks.make_vae(),
            "unet": networks.make_unet(),
            "text": networks.make_text_encoder(tokens),
            "checker": networks.make_checker(),
        }
    millions = {name: sum(p.numel() for p in model.parameters()) / 1e6 for name, model in models.items()}
    assert millions == pytest.approx({"vae": 3.9, "unet": 29.7, "text": 9.4, "checker": 0.4}, abs=0.06)
