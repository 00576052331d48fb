"""Stock diffusers beside ours: the pictures that its pipelines draw for a request."""

from __future__ import annotations

from contextlib import ExitStack
from pathlib import Path
from typing import Any
from unittest.mock import patch

import torch
from diffusers import (
    DDIMScheduler,
    DiffusionPipeline,
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
from diffusers.pipelines.stable_diffusion import pipeline_stable_diffusion
from diffusers.schedulers import scheduling_euler_ancestral_discrete, scheduling_lcm
from diffusers.utils.torch_utils import randn_tensor
from PIL import Image

from jsd.request import Request

# From the table of samplers in the documentation of diffusers, and not from the code under test.
SCHEDULERS = {
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
DRAWS_NOISE = ("K_EULER_ANCESTRAL", "LCM")


class Stock:
    """A model folder in stock diffusers, on `device` and in `dtype`."""

    def __init__(self, folder: Path, device: torch.device | str = "cpu", dtype: torch.dtype = torch.float32):
        pipeline = StableDiffusionPipeline.from_pretrained(folder, local_files_only=True, dtype=dtype).to(device)
        self._parts, self._config = pipeline.components, dict(pipeline.scheduler.config)

    def draw(
        self, request: Request, kind: type[DiffusionPipeline] = StableDiffusionPipeline, **arguments: Any
    ) -> list[Image.Image]:
        """Draw the pictures of a request, whose settings are all given, with a pipeline of `kind`."""
        scheduler_class, settings = SCHEDULERS[request.scheduler]
        if request.image is not None and request.prompt_strength < 1:
            # Ours spreads the steps over the noise levels from prompt_strength down, and stock skips the first of all
            # steps. So stock gets a scheduler that knows only these levels.
            betas = torch.linspace(self._config["beta_start"] ** 0.5, self._config["beta_end"] ** 0.5, 1000) ** 2
            betas = betas[: round(1000 * request.prompt_strength)].tolist()
            settings = {**settings, "trained_betas": betas, "num_train_timesteps": len(betas)}
            settings["timestep_spacing"] = "trailing"
        # A new scheduler from the original config. Otherwise the settings of one sampler would reach the next.
        scheduler = scheduler_class.from_config(self._config, **settings)
        pipeline = kind(**{**self._parts, "scheduler": scheduler}, requires_safety_checker=True)
        pipeline.set_progress_bar_config(disable=True)
        with ExitStack() as stack:
            for module in (pipeline_stable_diffusion, scheduling_euler_ancestral_discrete, scheduling_lcm):
                stack.enter_context(patch.object(module, "randn_tensor", _noise))
            return pipeline(
                request.prompt,
                negative_prompt=request.negative_prompt,
                guidance_scale=request.guidance_scale,
                num_images_per_prompt=request.num_outputs,
                generator=[torch.Generator().manual_seed(request.seed + i) for i in range(request.num_outputs)],
                **{"num_inference_steps": request.num_inference_steps, **arguments},
            ).images


def _noise(shape: Any, generator: Any = None, device: Any = None, dtype: Any = None, layout: Any = None) -> Any:
    """Draw noise as diffusers does, but always in float32, as ours does. In float16 a seed gives other noise."""
    return randn_tensor(shape, generator, device, torch.float32, layout).to(dtype)
