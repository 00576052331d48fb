"""Every scheduler name gives a new scheduler that matches the noise the model was trained on."""

from __future__ import annotations

import inspect
import re
import warnings
from pathlib import Path

import pytest
import torch
from diffusers.utils import logging

from jsd.errors import InputError
from jsd.request import SCHEDULER_NAMES
from jsd.schedulers import SCHEDULERS, LinearMultistepScheduler, make_scheduler, set_timesteps, takes_generator
from tests.fakes import MODEL_NOISE

DOCS = Path(__file__).resolve().parent.parent / "docs" / "schedulers.md"
# The config of the folder of 2022. No scheduler of today knows tensor_format.
CONFIG = {"_class_name": "PNDMScheduler", **MODEL_NOISE, "tensor_format": "pt"}


def test_a_request_allows_exactly_the_names_that_can_be_made():
    assert tuple(SCHEDULERS) == SCHEDULER_NAMES


@pytest.mark.parametrize("name", SCHEDULER_NAMES)
@pytest.mark.parametrize("steps", [1, 2, 3, 50, 500])
@pytest.mark.parametrize("prediction_type", ["epsilon", "v_prediction"])
def test_a_perfect_model_is_sampled_to_its_picture(name, steps, prediction_type):
    """The model knows the picture, in which all latents are 0.5. Every sampler reaches it in any number of steps."""
    # By default DDIM and PNDM count up from t = 0, so a single step would start where there is no noise.
    spacing = {"timestep_spacing": "trailing"} if steps == 1 else {}
    scheduler = make_scheduler(name, {**CONFIG, **spacing, "prediction_type": prediction_type})
    set_timesteps(scheduler, steps)
    alphas_cumprod = scheduler.alphas_cumprod.double()
    noise = {"generator": torch.Generator().manual_seed(1)} if takes_generator(scheduler) else {}
    x_0 = torch.full((1, 4, 8, 8), 0.5)
    x_t = torch.randn(x_0.shape, generator=torch.Generator().manual_seed(0)) * scheduler.init_noise_sigma
    for t in scheduler.timesteps:
        x = scheduler.scale_model_input(x_t, t)
        # x = sqrt(a) x_0 + sqrt(1 - a) eps; v = sqrt(a) eps - sqrt(1 - a) x_0 (Salimans and Ho 2022, appendix D).
        a = torch.lerp(alphas_cumprod[int(t)], alphas_cumprod[min(int(t) + 1, 999)], float(t) % 1)
        eps = (x - a.sqrt() * x_0) / (1 - a).sqrt()
        v = a.sqrt() * eps - (1 - a).sqrt() * x_0
        x_t = scheduler.step((eps if prediction_type == "epsilon" else v).float(), t, x_t, **noise).prev_sample
    assert (x_t - x_0).abs().mean() < 0.12


def test_steps_that_round_to_the_same_timestep_are_all_done():
    """On a cosine schedule the first Karras sigmas all round to t = 999. A search by t would skip some of the steps."""
    scheduler = make_scheduler("DPM_SOLVER_PP_2M_KARRAS", {**CONFIG, "beta_schedule": "squaredcos_cap_v2"})
    set_timesteps(scheduler, 22)
    assert scheduler.timesteps[0] == scheduler.timesteps[1]
    x_t = torch.zeros(1, 4, 8, 8)
    for i, t in enumerate(scheduler.timesteps):
        x_t = scheduler.step(x_t, t, x_t).prev_sample
        assert scheduler.step_index == i + 1


@pytest.mark.parametrize("steps", [1, 4, 50, 60, 150, 334, 500])
def test_lcm_starts_at_pure_noise(steps):
    scheduler = make_scheduler("LCM", CONFIG)
    set_timesteps(scheduler, steps)
    assert scheduler.timesteps[0] == 999
    assert len(scheduler.timesteps.unique()) == steps


@pytest.fixture
def diffusers_log(caplog):
    """The log records of diffusers. By default they do not reach pytest."""
    logging.enable_propagation()
    yield caplog
    logging.disable_propagation()


@pytest.mark.parametrize("name", SCHEDULER_NAMES)
def test_a_scheduler_is_made_without_warnings_and_does_not_clip(name, diffusers_log):
    with warnings.catch_warnings():
        warnings.simplefilter("error", FutureWarning)  # with this class diffusers reports a wrong setting
        scheduler = make_scheduler(name, CONFIG)
        set_timesteps(scheduler, 4)
    assert not diffusers_log.records
    assert not scheduler.config.get("clip_sample")
    assert scheduler.config.beta_start == CONFIG["beta_start"]


def test_every_call_makes_a_new_scheduler():
    assert make_scheduler("PNDM", CONFIG) is not make_scheduler("PNDM", CONFIG)


def test_an_unknown_name_is_refused_with_the_allowed_ones():
    with pytest.raises(InputError, match=r"'EULER'.*K_EULER"):
        make_scheduler("EULER", CONFIG)


def test_a_sampler_that_does_not_support_the_models_noise_is_refused():
    config = {**CONFIG, "rescale_betas_zero_snr": True}
    with pytest.raises(InputError, match="rescale_betas_zero_snr"):
        make_scheduler("K_LMS", config)
    assert make_scheduler("DDIM", config).config.rescale_betas_zero_snr


def test_k_lms_leaves_no_noise_when_the_first_steps_are_skipped():
    """The model knows the picture, so what is left of the noise is the sampler's fault. In diffusers it was 67%."""
    scheduler = make_scheduler("K_LMS", CONFIG)
    set_timesteps(scheduler, 50)
    scheduler.set_begin_index(45)
    x_0, noise = torch.full((1, 4, 8, 8), 0.5), torch.randn(1, 4, 8, 8, generator=torch.Generator().manual_seed(0))
    x_t = x_0 + scheduler.sigmas[45] * noise
    for t in scheduler.timesteps[45:]:
        scheduler.scale_model_input(x_t, t)
        x_t = scheduler.step((x_t - x_0) / scheduler.sigmas[scheduler.step_index], t, x_t).prev_sample
    assert (x_t - x_0).abs().mean() < 1e-3


def test_lms_coefficients_are_the_exact_integrals():
    scheduler = make_scheduler("K_LMS", CONFIG)
    set_timesteps(scheduler, 12)
    stock = super(LinearMultistepScheduler, scheduler).get_lms_coefficient  # integrates numerically, with scipy
    for order in (1, 2, 3, 4):
        for i in range(order):
            exact = scheduler.get_lms_coefficient(order, 7, i)
            assert exact == pytest.approx(float(stock(order, 7, i)), rel=1e-4)


@pytest.mark.parametrize(
    ("name", "setting", "reason"),
    [
        ("PNDM", {"prediction_type": "sample"}, "prediction_type given as sample must be one of"),
        ("K_EULER_ANCESTRAL", {"prediction_type": "sample"}, "prediction_type not implemented yet: sample"),
        ("DPM_SOLVER_PP_2M_KARRAS", {"use_beta_sigmas": True}, "Only one of `config.use_beta_sigmas`"),
        ("UNI_PC", {"use_dynamic_shifting": True}, "`mu` must be passed"),
        ("K_HEUN", {"timestep_spacing": "wide"}, "wide is not supported"),
        ("LCM", {"beta_schedule": "steep"}, "steep is not implemented"),
        ("K_LMS", {"beta_end": "high"}, "unsupported operand"),
        ("DDIM", {"prediction_type": "flow_prediction"}, "prediction_type given as flow_prediction must be one of"),
    ],
)
def test_a_value_that_a_sampler_does_not_take_is_refused_in_words(name, setting, reason):
    with pytest.raises(
        InputError, match=f"^scheduler: {name} does not take this model's config .{reason}.*; take another"
    ):
        make_scheduler(name, CONFIG | setting)


@pytest.mark.parametrize("name", SCHEDULER_NAMES)
@pytest.mark.parametrize(
    "setting",
    [
        {"_class_name": "FlowMatchEulerDiscreteScheduler"},
        {"_class_name": "EDMEulerScheduler"},
    ],
)
def test_no_sampler_draws_a_model_of_other_noise(name, setting):
    with pytest.raises(InputError, match="none here can sample this model, because it"):
        make_scheduler(name, CONFIG | setting)


def test_only_uni_pc_draws_a_model_of_flow_matching():
    """DPM++ takes flow sigmas as well, but not those of Karras, which this sampler has."""
    flow = CONFIG | {"use_flow_sigmas": True, "prediction_type": "flow_prediction", "flow_shift": 3.0}
    for name in SCHEDULER_NAMES:
        if name != "UNI_PC":
            with pytest.raises(InputError, match="trained with (use_flow_sigmas|flow matching)"):
                make_scheduler(name, flow)
    scheduler = make_scheduler("UNI_PC", flow)
    set_timesteps(scheduler, 20)
    x_0, noise = torch.full((1, 4, 8, 8), 0.5), torch.randn(1, 4, 8, 8, generator=torch.Generator().manual_seed(0))
    x_t = noise
    for t in scheduler.timesteps:  # the velocity is noise - x_0 at all times (Liu et al. 2023)
        x_t = scheduler.step(noise - x_0, t, x_t).prev_sample
    assert (x_t - x_0).abs().mean() < 0.01


def test_trying_a_sampler_draws_no_random_number():
    before = torch.get_rng_state()
    make_scheduler("K_EULER_ANCESTRAL", CONFIG)
    assert torch.equal(torch.get_rng_state(), before)


def test_the_documentation_lists_who_reads_which_setting():
    rows = re.findall(r"^\| `(\w+)` \| ([A-Z_0-9, ]+) \|$", DOCS.read_text("utf-8"), re.M)
    read = {name: set(inspect.signature(kind.__init__).parameters) for name, (kind, _) in SCHEDULERS.items()}
    some = set.union(*read.values()) - set.intersection(*read.values())
    documented = {setting: names.split(", ") for setting, names in rows}
    assert documented.keys() == some - {"rescale_betas_zero_snr", "use_flow_sigmas"}  # which are in the table above
    for setting, names in documented.items():
        assert names == [name for name in SCHEDULERS if setting in read[name]]
