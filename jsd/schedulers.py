"""The samplers by name. A scheduler keeps state between steps: `make_scheduler` builds a fresh one for every job."""

from __future__ import annotations

import inspect
import math
from typing import Any

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
)

# Not from `diffusers` itself, which hides this class when scipy is absent.
from diffusers.schedulers.scheduling_lms_discrete import LMSDiscreteScheduler

from jsd.request import InputError, shown


class LinearMultistepScheduler(LMSDiscreteScheduler):
    """K-LMS with its coefficients integrated exactly, so that scipy is not needed and a step costs microseconds."""

    def get_lms_coefficient(self, order: int, t: int, current_order: int) -> float:
        """The integral of Lagrange's basis polynomial `current_order` of `order` nodes, from sigma_t to sigma_t+1.

        The polynomial has degree `order - 1` <= 3, for which Gauss-Legendre quadrature with two nodes is exact
        (Hairer, Norsett, Wanner, Solving Ordinary Differential Equations I, III.5: variable-step Adams methods).
        """
        nodes = [float(self.sigmas[t - k]) for k in range(order)]
        start, end = float(self.sigmas[t]), float(self.sigmas[t + 1])
        middle, half = (start + end) / 2, (end - start) / 2

        def basis(tau: float) -> float:
            x_i = nodes[current_order]
            return math.prod((tau - x) / (x_i - x) for k, x in enumerate(nodes) if k != current_order)

        return half * (basis(middle - half / math.sqrt(3)) + basis(middle + half / math.sqrt(3)))


# name -> (class, arguments that make the class this sampler)
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

# Latents are not pixels: they leave [-1, 1] and must not be clipped. A folder's own config goes before these.
LATENT_DIFFUSION = {"clip_sample": False, "set_alpha_to_one": False, "steps_offset": 1}

# Settings that say which noise a model was trained on: a sampler that can't follow one would draw rubbish.
NOISE_SETTINGS = ("prediction_type", "trained_betas", "rescale_betas_zero_snr")


def make_scheduler(name: str, config: dict[str, Any]) -> SchedulerMixin:
    """A fresh scheduler `name` for a model whose `scheduler/scheduler_config.json` is `config`.

    Settings the class does not know are left out. Raises `InputError` for an unknown name, or one that can't follow
    the noise the model was trained on.
    """
    if name not in SCHEDULERS:
        raise InputError("scheduler", f"{shown(name)} was given; allowed are {', '.join(SCHEDULERS)}")
    scheduler_class, arguments = SCHEDULERS[name]
    known = inspect.signature(scheduler_class.__init__).parameters
    for key in NOISE_SETTINGS:
        if config.get(key) and key not in known:
            raise InputError("scheduler", f"{name} can't sample this model, which was trained with {key}; take DDIM")
    settings = {**LATENT_DIFFUSION, **config, **arguments}
    return scheduler_class(**{key: value for key, value in settings.items() if key in known})


def set_timesteps(scheduler: SchedulerMixin, num_inference_steps: int) -> None:
    """Lay out `num_inference_steps` steps on the CPU, from the first; `scheduler.timesteps` has one value a UNet call.

    K_HEUN calls the UNet twice a step but the last, PNDM once more than it has steps.
    """
    if isinstance(scheduler, LCMScheduler):
        # LCM picks its steps from those it was distilled on; asked for more, it needs a finer ladder to pick from. Its
        # rungs have to divide the noise evenly, or the first step would begin below the top, where there is no noise.
        rungs = max(num_inference_steps, scheduler.config.original_inference_steps)
        trained = scheduler.config.num_train_timesteps
        gap = next(gap for gap in range(max(1, trained // rungs), 0, -1) if trained % gap == 0)
        scheduler.set_timesteps(num_inference_steps, original_inference_steps=trained // gap)
    else:
        scheduler.set_timesteps(num_inference_steps)
    if hasattr(scheduler, "set_begin_index"):
        # Else the scheduler looks its place up by timestep, and goes wrong where two steps round to the same one.
        scheduler.set_begin_index(0)


def takes_generator(scheduler: SchedulerMixin) -> bool:
    """Whether `scheduler.step` draws noise, and so wants the job's generators."""
    return "generator" in inspect.signature(scheduler.step).parameters
