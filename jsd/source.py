"""The start latents of a request: from noise, a picture (image to image), or a picture with a mask (inpainting).

These differ only in the start, and inpainting by a blend after each step. `jsd.sampling` does the denoising.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

import numpy as np
import torch
from diffusers import SchedulerMixin
from PIL import Image

from jsd.images import crop_to
from jsd.request import Request
from jsd.vae import encode

if TYPE_CHECKING:
    from jsd.model import Components

REPAINTED = 128  # the least brightness of a mask's pixel for which latents are repainted


@dataclass
class Source:
    """The encoded picture that sampling starts from: its latents `z` and the `noise` to add to them, both (n, c, h, w).

    `mask` is (1, 1, h, w): 1 where the picture is repainted, 0 where it is kept. None means that all is repainted.
    """

    z: torch.Tensor
    noise: torch.Tensor
    mask: torch.Tensor | None


def draw_noise(components: Components, request: Request, generators: Sequence[torch.Generator]) -> torch.Tensor:
    """Draw Gaussian noise in the shape of a request's latents, (n, c, h, w), on the CPU: one generator per picture."""
    cell = components.defaults.cell
    shape = (1, components.unet.config.in_channels, request.height // cell, request.width // cell)
    return torch.cat([torch.randn(shape, generator=generator) for generator in generators])


def at_size(request: Request) -> Request:
    """Return a resolved request with its image and mask cropped and scaled to its size.

    A mask that is all white keeps nothing, so it is left out. Needs no model. A large picture may take a second, so
    call this before the request joins a batch.
    """
    size, image, mask = (request.width, request.height), request.image, request.mask
    if mask is not None and mask.size != image.size:  # it covers the whole image
        mask = mask.resize(image.size, Image.Resampling.NEAREST)
    if image is not None and image.size != size:
        image = crop_to(image, size)
        # LANCZOS would leave ripples where the mask is black.
        mask = None if mask is None else crop_to(mask, size, resampling=Image.Resampling.BOX)
    if mask is not None and mask.getextrema()[0] == 255:
        mask = None
    return replace(request, image=image, mask=mask)


@torch.inference_mode()
def make_source(components: Components, request: Request, generators: Sequence[torch.Generator]) -> Source:
    """Encode the image of a resized `request`, shrink its mask to latent size, and draw the noise for the latents.

    Each generator draws twice: first the noise for sampling the posterior, then the noise that is added. This is the
    order of stock diffusers.
    """
    posterior = encode(components, request.image)
    z = posterior.mean.cpu() + posterior.std.cpu() * draw_noise(components, request, generators)
    mask = None
    if request.mask is not None:
        # A latent cell with any white pixel is repainted. `put_back` restores its black pixels.
        white = torch.from_numpy(np.array(request.mask) >= REPAINTED).float()[None, None]
        mask = torch.nn.functional.max_pool2d(white, components.defaults.cell).to(components.device)
    z = (z * components.vae.config.scaling_factor).to(components.device)
    return Source(z, draw_noise(components, request, generators).to(components.device), mask)


def start(scheduler: SchedulerMixin, source: Source, request: Request) -> tuple[torch.Tensor, torch.Tensor]:
    """Return the timesteps and start latents for a request with an image (SDEdit, Meng et al. 2022, arXiv 2108.01073).

    The first share 1 - prompt_strength of the steps is skipped, and the source's latents get the noise of the first
    step left. At least one step is left, unless prompt_strength is 0. At 1, inpainting starts from pure noise.
    """
    taken = int(request.num_inference_steps * request.prompt_strength)
    taken = max(taken, 1) if request.prompt_strength > 0 else 0
    if not taken:
        return scheduler.timesteps[:0], source.z
    skipped = (request.num_inference_steps - taken) * scheduler.order
    timesteps = scheduler.timesteps[skipped:]
    if hasattr(scheduler, "set_begin_index"):
        scheduler.set_begin_index(skipped)
    if request.prompt_strength == 1 and source.mask is not None:
        return timesteps, source.noise * scheduler.init_noise_sigma
    return timesteps, scheduler.add_noise(source.z, source.noise, timesteps[:1])


def blend(source: Source, scheduler: SchedulerMixin, x_t: torch.Tensor, next_t: torch.Tensor) -> torch.Tensor:
    """Return `x_t` with the source's latents where the mask keeps them (Lugmayr et al. 2022, arXiv 2201.09865, eq. 8).

    `next_t`, (1,), is the timestep of the next step. The source's latents get the noise of that timestep. After the
    last step `next_t` is empty, (0,), and they get none.
    """
    kept = scheduler.add_noise(source.z, source.noise, next_t) if len(next_t) else source.z
    return (1 - source.mask) * kept + source.mask * x_t


def put_back(request: Request, painted: Sequence[Image.Image]) -> list[Image.Image]:
    """Return the pictures `painted` for a resized `request` with its image's own pixels where these are to be kept.

    These are the pixels where the mask is black, and all with a prompt_strength of 0. Where the mask is grey, it mixes
    the two. `blend` alone is not enough: the autoencoder changes every pixel a little, and a latent position at the
    mask's edge is repainted whole.
    """
    if request.prompt_strength == 0:
        return [request.image] * len(painted)
    if request.mask is None:
        return list(painted)
    return [Image.composite(image, request.image, request.mask) for image in painted]
