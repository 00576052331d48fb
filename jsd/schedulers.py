"""The samplers by name. A scheduler keeps state between steps, so `make_scheduler` makes a new one for each request."""

from __future__ import annotations

import inspect
import math
from collections.abc import Mapping
from typing import Any

import torch
from diffusers import (
    DDIMScheduler,
    DPMSolverMultistepScheduler,
    EulerAncestralDiscreteScheduler,
    EulerDiscreteScheduler,
    HeunDiscreteScheduler,
    LCMScheduler,
    PNDMScheduler,
    SchedulerMixin,
    UniPCMultistepScheduler,
    schedulers,
)

# `diffusers` itself does not export this class when scipy is missing.
from diffusers.schedulers.scheduling_lms_discrete import LMSDiscreteScheduler

from jsd.errors import InputError, shown
from jsd.language import Text


class LinearMultistepScheduler(LMSDiscreteScheduler):
    """The sampler K_LMS with exact coefficients. Unlike in diffusers they need no scipy, and take microseconds."""

    def step(self, model_output: torch.Tensor, timestep: float, sample: torch.Tensor, order: int = 4, **rest: Any):
        """Take a step, as diffusers' class does, with an order that grows with the derivatives that are kept.

        There the order depends on the number of the step. So a schedule whose first steps are skipped, as in image to
        image, applied coefficients of order 4 to one derivative, and left noise in the picture.
        """
        return super().step(model_output, timestep, sample, min(order, len(self.derivatives) + 1), **rest)

    def get_lms_coefficient(self, order: int, t: int, current_order: int) -> float:
        """Return the weight of derivative `current_order` (0: the newest) in the step from sigma_t to sigma_t+1.

        It is the integral of a Lagrange basis polynomial over the last `order` sigmas (Hairer, Norsett, Wanner, Solving
        ODEs I, III.5: variable-step Adams). Gauss-Legendre quadrature with two nodes is exact up to its degree, 3.
        """
        nodes = [float(self.sigmas[t - k]) for k in range(order)]
        start, end = float(self.sigmas[t]), float(self.sigmas[t + 1])
        middle, half = (start + end) / 2, (end - start) / 2

        def basis(tau: float) -> float:
            x_i = nodes[current_order]
            return math.prod((tau - x) / (x_i - x) for k, x in enumerate(nodes) if k != current_order)

        return half * (basis(middle - half / math.sqrt(3)) + basis(middle + half / math.sqrt(3)))


# name -> (class, the arguments that turn the class into this sampler)
SCHEDULERS: dict[str, tuple[type[SchedulerMixin], dict[str, Any]]] = {
    "DDIM": (DDIMScheduler, {}),
    "K_LMS": (LinearMultistepScheduler, {}),
    "PNDM": (PNDMScheduler, {"skip_prk_steps": True}),
    "K_EULER": (EulerDiscreteScheduler, {}),
    "K_EULER_ANCESTRAL": (EulerAncestralDiscreteScheduler, {}),
    "K_HEUN": (HeunDiscreteScheduler, {}),
    "DPM_SOLVER_PP_2M_KARRAS": (
        DPMSolverMultistepScheduler,
        {"algorithm_type": "dpmsolver++", "solver_order": 2, "use_karras_sigmas": True},
    ),
    "UNI_PC": (UniPCMultistepScheduler, {}),
    "LCM": (LCMScheduler, {}),
}

LATENT_DIFFUSION = {"set_alpha_to_one": False, "steps_offset": 1}  # defaults; a model's own config overrides them
NO_CLIPPING = {"clip_sample": False, "thresholding": False}  # latents may leave [-1, 1]

# Settings of the noise a model was trained on. A sampler that ignores one of them would draw noise.
NOISE_SETTINGS = ("beta_start", "prediction_type", "trained_betas", "rescale_betas_zero_snr", "use_flow_sigmas")
OTHER = Text("take another, such as DDIM or UNI_PC")


def make_scheduler(name: str, config: dict[str, Any], levels: int | None = None) -> SchedulerMixin:
    """Return a new scheduler for the sampler `name` (a key of SCHEDULERS) and the scheduler config of a model.

    With `levels` the scheduler knows only so many of the training timesteps, the least noisy ones, and its first
    timestep is the noisiest of them. Settings that the class does not know are left out. Raises `InputError` for an
    unknown name, and for a sampler that does not support the noise the model was trained on or a value of its config.
    """
    if name not in SCHEDULERS:
        raise InputError("scheduler", "{} was given; allowed are {}", shown(name), ", ".join(SCHEDULERS))
    scheduler_class, arguments = SCHEDULERS[name]
    known = inspect.signature(scheduler_class.__init__).parameters
    check_model(config)
    check_noise(name, scheduler_class, config)
    flow = config.get("use_flow_sigmas") or config.get("prediction_type") == "flow_prediction"
    if flow and arguments.get("use_karras_sigmas"):  # diffusers would mix the two
        raise InputError(
            "scheduler", "{} can't sample this model, which was trained with flow matching; {}", name, OTHER
        )
    settings = {**LATENT_DIFFUSION, **config, **NO_CLIPPING, **arguments}
    if levels is not None:
        settings["trained_betas"] = make_scheduler(name, config).betas[:levels].tolist()
        settings |= {"num_train_timesteps": levels, "timestep_spacing": "trailing"}
        settings |= {"rescale_betas_zero_snr": False, "sigma_max": None}  # the betas are rescaled, and end at `levels`
    settings = {key: value for key, value in settings.items() if key in known}
    try:
        _try_step(scheduler_class(**settings))
    except (ImportError, IndexError, NotImplementedError, TypeError, ValueError) as error:
        reason = str(error).strip().partition("\n")[0]
        raise InputError("scheduler", "{} does not take this model's config ({}); {}", name, reason, OTHER) from error
    return scheduler_class(**settings)


def check_model(config: Mapping[str, Any]) -> None:
    """Raise `InputError` if a scheduler config is of a model that was trained on noise of another kind."""
    trained = getattr(schedulers, str(config.get("_class_name")), None)
    if not (isinstance(trained, type) and issubclass(trained, SchedulerMixin)):
        return
    if "beta_start" not in inspect.signature(trained.__init__).parameters:
        raise InputError(
            "scheduler",
            "none here can sample this model, because its {} has other noise than Stable Diffusion 1; take another "
            "model",
            trained.__name__,
        )


def check_noise(name: str, scheduler_class: type[SchedulerMixin], config: Mapping[str, Any]) -> None:
    """Raise `InputError`, which calls the scheduler `name`, if it ignores one of NOISE_SETTINGS that `config` has.

    A class may take the settings of its base class as keyword arguments. What a class of other origin heeds is unknown.
    """
    if not issubclass(scheduler_class, SchedulerMixin):
        return
    known = {key for kind in scheduler_class.__mro__ for key in inspect.signature(kind.__init__).parameters}
    for key in NOISE_SETTINGS:
        if key not in known and config.get(key) not in (None, False, "epsilon"):
            raise InputError("scheduler", "{} can't sample this model, which was trained with {}; {}", name, key, OTHER)


def _try_step(scheduler: SchedulerMixin) -> None:
    """Take a step. Some schedulers find only then that they do not support a setting."""
    set_timesteps(scheduler, 1)
    x = torch.zeros(1, 1, 1, 1)
    noise = {"generator": torch.Generator()} if takes_generator(scheduler) else {}
    scheduler.step(x, scheduler.timesteps[0], scheduler.scale_model_input(x, scheduler.timesteps[0]), **noise)


def set_timesteps(scheduler: SchedulerMixin, num_inference_steps: int) -> None:
    """Set the timesteps of a scheduler, on the CPU. Afterwards `scheduler.timesteps` has one value per UNet call.

    K_HEUN calls the UNet twice in every step but the last. PNDM calls it once more than it has steps.
    """
    if isinstance(scheduler, LCMScheduler):
        # LCM selects its steps from a grid of original_inference_steps timesteps. For more steps the grid has to be
        # finer. Its spacing has to divide the training timesteps, or the first step would not start at pure noise.
        points = max(num_inference_steps, scheduler.config.original_inference_steps)
        trained = scheduler.config.num_train_timesteps
        gap = next(gap for gap in range(max(1, trained // points), 0, -1) if trained % gap == 0)
        scheduler.set_timesteps(num_inference_steps, original_inference_steps=trained // gap)
    else:
        scheduler.set_timesteps(num_inference_steps)
    if hasattr(scheduler, "set_begin_index"):
        # Otherwise the scheduler finds its step by the timestep, which fails if two steps have the same one.
        scheduler.set_begin_index(0)


def takes_generator(scheduler: SchedulerMixin) -> bool:
    """Whether `scheduler.step` takes random generators, for noise that it may add."""
    return "generator" in inspect.signature(scheduler.step).parameters
