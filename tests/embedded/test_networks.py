"""The noise schedule of the embedded model."""

import pytest
from diffusers import DDPMScheduler

from embedded import networks
from jsd.schedulers import SCHEDULERS, make_scheduler


def test_the_last_timestep_is_almost_pure_noise():
    assert float(DDPMScheduler(**networks.NOISE_SCHEDULE).alphas_cumprod[-1].sqrt()) < 0.02


@pytest.mark.parametrize("name", SCHEDULERS)
def test_every_sampler_supports_the_noise_schedule(name):
    assert make_scheduler(name, networks.NOISE_SCHEDULE).config.prediction_type == "v_prediction"
