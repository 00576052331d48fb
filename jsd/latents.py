"""Latents: drawn as noise, encoded from a picture, decoded to pictures."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import torch
from diffusers.models.autoencoders.vae import DiagonalGaussianDistribution
from PIL import Image

from jsd.memory import give_back_freed_memory
from jsd.request import NaNError, Request
from jsd.weights import Components

LARGE_PIXELS = 512 * 512  # of a picture whose decoding takes about a gigabyte


def draw_noise(components: Components, request: Request, generators: Sequence[torch.Generator]) -> torch.Tensor:
    """Fresh noise in the shape of the request's latents, (n, c, h, w), on the CPU."""
    cell = components.defaults.cell
    shape = (1, components.unet.config.in_channels, request.height // cell, request.width // cell)
    return torch.cat([torch.randn(shape, generator=generator) for generator in generators])


@torch.inference_mode()
def encode(components: Components, image: Image.Image) -> DiagonalGaussianDistribution:
    """An RGB picture to the VAE's distribution over its latents, (1, c, h, w), not scaled yet."""
    pixels = torch.from_numpy(np.array(image)).permute(2, 0, 1)[None].float() / 127.5 - 1
    posterior = components.vae.encode(pixels.to(components.device, components.dtype)).latent_dist
    return DiagonalGaussianDistribution(posterior.parameters.float())


@torch.inference_mode()
def decode(components: Components, x_0: torch.Tensor) -> list[Image.Image]:
    """Latents, (n, c, h, w), to n pictures of h and w times the model's cell. Raises `NaNError`."""
    if not x_0.isfinite().all():
        raise NaNError(
            "the latents became NaN or infinite; try another scheduler, more steps or a lower guidance_scale"
        )
    if x_0.device.type == "cpu" and x_0[0, 0].numel() * components.defaults.cell**2 >= LARGE_PIXELS:
        give_back_freed_memory()
    z = x_0 / components.vae.config.scaling_factor
    pixels = components.vae.decode(z.to(components.dtype), return_dict=False)[0].float()
    if not pixels.isfinite().all() and components.dtype == torch.float16:
        pixels = _decode_in_full(components, z)  # some latents overflow half precision
    if not pixels.isfinite().all():
        raise NaNError("the decoded picture holds NaN or infinite pixels; try another seed, or JSD_DTYPE=fp32")
    pixels = (pixels / 2 + 0.5).clamp(0, 1).permute(0, 2, 3, 1).cpu().numpy()
    return [Image.fromarray(picture) for picture in (pixels * 255).round().astype(np.uint8)]


def _decode_in_full(components: Components, z: torch.Tensor) -> torch.Tensor:
    """Decode in float32, and leave the VAE as it was."""
    try:
        return components.vae.float().decode(z.float(), return_dict=False)[0]
    finally:
        components.vae.to(components.dtype)
