"""The autoencoder (VAE): pictures to latents (`encode`) and latents to pictures (`decode`)."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np
import torch
from diffusers.models.autoencoders.vae import DiagonalGaussianDistribution
from PIL import Image

from jsd.errors import NaNError

if TYPE_CHECKING:
    from jsd.model import Components


def to_tensor(pixels: np.ndarray | Image.Image) -> torch.Tensor:
    """Convert RGB pixels, uint8 (..., h, w, 3) or a Pillow picture, to a float32 tensor (..., 3, h, w) in [-1, 1]."""
    return torch.from_numpy(np.array(pixels)).movedim(-1, -3).float() / 127.5 - 1


def to_pixels(x: torch.Tensor) -> np.ndarray:
    """Convert a float tensor (..., 3, h, w) in [-1, 1] to RGB pixels, uint8 (..., h, w, 3). The rest is clipped."""
    shares = (x / 2 + 0.5).clamp(0, 1).movedim(-3, -1).cpu().numpy()
    return (shares * 255).round().astype(np.uint8)


@torch.inference_mode()
def encode(components: Components, image: Image.Image) -> DiagonalGaussianDistribution:
    """Encode an RGB picture. Returns the distribution of its latents, (1, c, h, w), before the scaling factor."""
    pixels = to_tensor(image)[None].to(components.device, components.dtype)
    posterior = components.vae.encode(pixels).latent_dist
    return DiagonalGaussianDistribution(posterior.parameters.float())


@torch.inference_mode()
def decode(components: Components, x_0: torch.Tensor) -> list[Image.Image]:
    """Decode scaled latents, (n, c, h, w), to n RGB Pillow pictures, larger by the VAE's factor (mostly 8).

    Raises `NaNError` if the latents or the pixels are not finite.
    """
    if not x_0.isfinite().all():
        raise NaNError(
            "the latents became NaN or infinite; try another scheduler, more steps or a lower guidance_scale"
        )
    z = x_0 / components.vae.config.scaling_factor
    pixels = components.vae.decode(z.to(components.dtype), return_dict=False)[0].float()
    if not pixels.isfinite().all() and components.dtype == torch.float16:
        pixels = _decode_in_float32(components, z)  # some latents overflow half precision
    if not pixels.isfinite().all():
        raise NaNError("the decoded picture holds NaN or infinite pixels; try another seed, or JSD_DTYPE=fp32")
    return [Image.fromarray(picture) for picture in to_pixels(pixels)]


def _decode_in_float32(components: Components, z: torch.Tensor) -> torch.Tensor:
    """Convert the VAE to float32, decode `z`, convert the VAE back to its own dtype, and return the pixels."""
    try:
        return components.vae.float().decode(z.float(), return_dict=False)[0]
    finally:
        components.vae.to(components.dtype)
