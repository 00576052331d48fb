"""The start latents of a request: from noise, a picture (image to image), or a picture with a mask (inpainting).

These differ only in the start, and inpainting by a blend after each step. `jsd.sampling` does the denoising.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

import numpy as np
import torch
from PIL import Image

from jsd.images import crop_to
from jsd.request import Request
from jsd.vae import encode

if TYPE_CHECKING:
    from jsd.model import Components
    from jsd.schedule import Schedule

REPAINTED = 128  # the least brightness of a mask's pixel for which latents are repainted


@dataclass
class Source:
    """The encoded picture that sampling starts from: its latents `z` and the `noise` to add to them, both (n, c, h, w).

    `mask` is (1, 1, h, w), bool: whether a latent position is repainted. None means that all is repainted.
    """

    z: torch.Tensor
    noise: torch.Tensor
    mask: torch.Tensor | None

    def noised(self, factors: tuple[float, float] = (1.0, 0.0)) -> torch.Tensor:
        """Return the latents at a noise level: (n, c, h, w). `factors` are those of latents and noise."""
        return factors[0] * self.z + factors[1] * self.noise


def draw_noise(components: Components, request: Request, generators: Sequence[torch.Generator]) -> torch.Tensor:
    """Draw Gaussian noise in the shape of a request's latents, (n, c, h, w), with one generator per picture.

    The CPU draws it and the model's device gets it, without waiting for what is queued there.
    """
    cell = components.defaults.cell
    shape = (components.unet.config.in_channels, request.height // cell, request.width // cell)
    noise = torch.empty(len(generators), *shape, pin_memory=components.device.type == "cuda")
    for picture, generator in zip(noise, generators, strict=True):
        picture.normal_(generator=generator)
    return noise.to(components.device, non_blocking=True)


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
    z = posterior.mean + posterior.std * draw_noise(components, request, generators)
    mask = None
    if request.mask is not None:
        # A latent cell with any white pixel is repainted. `put_back` restores its black pixels.
        white = torch.from_numpy(np.array(request.mask) >= REPAINTED).float()[None, None]
        mask = torch.nn.functional.max_pool2d(white, components.defaults.cell).to(components.device) > 0
    z = z * components.vae.config.scaling_factor
    return Source(z, draw_noise(components, request, generators), mask)


def start(
    components: Components,
    request: Request,
    schedule: Schedule,
    source: Source | None,
    generators: Sequence[torch.Generator],
) -> torch.Tensor:
    """Return the start latents of a request, (n, c, h, w).

    With an image, they are its latents with the noise of the first step (SDEdit, Meng et al. 2022, arXiv 2108.01073).
    Text to image starts from pure noise, and so does an image with a prompt_strength of 1.
    """
    if source is None:
        return draw_noise(components, request, generators) * schedule.init_noise_sigma
    if request.prompt_strength == 1:
        return source.noise * schedule.init_noise_sigma
    return source.noised(*schedule.noised[:1])


def blend(source: Source, x_t: torch.Tensor, noised: Sequence[tuple[float, float]]) -> None:
    """Restore the source's latents in `x_t`, in place, where the mask keeps them (Lugmayr et al. 2022, arXiv
    2201.09865, eq. 8). They get the noise of the next step, `noised` (see `Schedule`). After the last step it is empty.
    """
    x_t.copy_(torch.where(source.mask, x_t, source.noised(*noised)))


def put_back(request: Request, painted: Sequence[torch.Tensor]) -> list[torch.Tensor]:
    """Return the pictures `painted` for a resized `request` with its image's own pixels where these are to be kept.

    Pictures are uint8 (height, width, 3). The own pixels are kept where the mask is black, and everywhere with a
    prompt_strength of 0. Where the mask is grey, it mixes the two. `blend` alone is not enough: the autoencoder changes
    every pixel a little, and a latent position at the mask's edge is repainted whole.
    """
    own = torch.from_numpy(np.array(request.image)).to(painted[0].device)
    if request.prompt_strength == 0:
        return [own] * len(painted)
    if request.mask is None:
        return list(painted)
    white = torch.from_numpy(np.array(request.mask)).to(own.device)[..., None].int()
    return [((white * picture + (255 - white) * own + 127) // 255).byte() for picture in painted]
