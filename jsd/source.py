"""Starting from a picture: image to image, and inpainting, which repaints a part of it.

The latents begin elsewhere than in noise, and after each step those of what is kept are put back; the denoising in
between is `jsd.sampling`'s.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace

import numpy as np
import torch
from diffusers import SchedulerMixin
from PIL import Image

from jsd import images
from jsd.latents import decode, draw_noise, encode
from jsd.request import Request
from jsd.weights import Components

BLACK_WHITE = ((0, 0), (255, 255), (0, 255))  # the extremes of a mask that has been fitted


@dataclass
class Source:
    """The picture a job starts from. `mask` is 1 where it is repainted, (1, 1, h, w); None: everywhere."""

    z: torch.Tensor  # (n, c, h, w), its latents
    noise: torch.Tensor  # (n, c, h, w)
    mask: torch.Tensor | None


@torch.inference_mode()
def make_source(components: Components, request: Request, generators: Sequence[torch.Generator]) -> Source:
    """The latents of a fitted request's image and mask, and the noise that will cover them.

    From each generator first what the posterior is sampled with, then the noise: as stock diffusers draws them.
    """
    posterior = encode(components, request.image)
    z = posterior.mean.cpu() + posterior.std.cpu() * draw_noise(components, request, generators)
    mask = None
    if request.mask is not None:
        # A cell that is white anywhere is repainted whole; `finish` puts back the pixels that are not.
        white = torch.from_numpy(np.array(request.mask)).float()[None, None] / 255
        mask = torch.nn.functional.max_pool2d(white, components.defaults.cell).to(components.device)
    z = (z * components.vae.config.scaling_factor).to(components.device)
    return Source(z, draw_noise(components, request, generators).to(components.device), mask)


def fitted(request: Request) -> Request:
    """A resolved request with its image and mask as they are used: RGB, and black or white, both of its size.

    Needs no model and may take a second for a large picture: to be called before a request joins others.
    """
    size = (request.width, request.height)
    image, mask = request.image, request.mask
    if mask is not None and (mask.mode != "L" or mask.size != size or mask.getextrema() not in BLACK_WHITE):
        mask = images.fit(mask.convert("L").resize(image.size, Image.Resampling.NEAREST), size)
        mask = mask.point(lambda value: 255 * (value >= 128))
    if image is not None and (image.mode != "RGB" or image.size != size):
        image = images.fit(images.to_rgb(image), size)
    return replace(request, image=image, mask=mask)


def depart(scheduler: SchedulerMixin, source: Source, request: Request) -> tuple[torch.Tensor, torch.Tensor]:
    """The timesteps left when the first (1 - prompt_strength) of them are skipped, one at least unless it is 0, and the
    latents to begin with (SDEdit, Meng et al. 2022, arXiv 2108.01073, sec. 3).
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
    """Latents of an inpainting job with the source's own where nothing is repainted, as noisy as the next step, at
    `next_t` (1,), expects; clean after the last, when it is empty (Lugmayr et al. 2022, arXiv 2201.09865, eq. 8).
    """
    kept = scheduler.add_noise(source.z, source.noise, next_t) if len(next_t) else source.z
    return (1 - source.mask) * kept + source.mask * x_t


def put_back(components: Components, request: Request, painted: Sequence[Image.Image]) -> list[Image.Image]:
    """The pictures with the VAE's own rendering of the source wherever nothing is repainted: blending its latents
    alone would let what is painted show through for the width of a cell.
    """
    z = encode(components, request.image).mean * components.vae.config.scaling_factor
    (kept,) = decode(components, z)
    return [Image.composite(image, kept, request.mask) for image in painted]
