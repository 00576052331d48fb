"""The autoencoder (VAE): pictures to latents (`encode`) and latents to pictures (`decode`)."""

from __future__ import annotations

import copy
from collections.abc import Callable
from typing import TYPE_CHECKING

import numpy as np
import torch
from diffusers import AutoencoderKL
from diffusers.models.autoencoders.vae import DiagonalGaussianDistribution
from PIL import Image

from jsd.errors import NaNError

if TYPE_CHECKING:
    from jsd.model import Components


def to_tensor(pixels: np.ndarray | Image.Image, device: torch.device | str = "cpu") -> torch.Tensor:
    """Convert RGB pixels, uint8 (..., h, w, 3) or a Pillow picture, to a float32 tensor (..., 3, h, w) in [-1, 1] on a
    device, which gets the bytes and converts them.
    """
    return torch.from_numpy(np.array(pixels)).to(device).movedim(-1, -3).float() / 127.5 - 1


def to_pixels(x: torch.Tensor) -> torch.Tensor:
    """Convert a float tensor (..., 3, h, w) in [-1, 1] to RGB pixels, uint8 (..., h, w, 3), on the same device.

    Values outside [-1, 1] are clipped.
    """
    return ((x / 2 + 0.5).clamp(0, 1) * 255).round().byte().movedim(-3, -1)


@torch.inference_mode()
def encode(components: Components, image: Image.Image) -> DiagonalGaussianDistribution:
    """Encode an RGB picture. Returns the distribution of its latents, (1, c, h, w), before the scaling factor."""
    pixels = to_tensor(image, components.device)[None]
    return DiagonalGaussianDistribution(_run(components, lambda vae, x: vae.encode(x).latent_dist.parameters, pixels))


@torch.inference_mode()
def decode(components: Components, x_0: torch.Tensor) -> torch.Tensor:
    """Decode scaled latents, (n, c, h, w), to RGB pixels: uint8 (n, height, width, 3), on the model's device.

    Raises `NaNError` if the latents or the pixels are not finite.
    """
    if not x_0.isfinite().all():
        raise NaNError(
            "the latents became NaN or infinite; try another scheduler, more steps or a lower guidance_scale"
        )
    z = x_0 / components.vae.config.scaling_factor
    pixels = _run(components, lambda vae, z: vae.decode(z, return_dict=False)[0], z)
    if not pixels.isfinite().all():
        raise NaNError("the decoded picture holds NaN or infinite pixels; try another seed, or JSD_DTYPE=fp32")
    return to_pixels(pixels)


def _run(
    components: Components, call: Callable[[AutoencoderKL, torch.Tensor], torch.Tensor], x: torch.Tensor
) -> torch.Tensor:
    """Return `call(vae, x)` as float32. `x` is float32, too. Where half precision overflows, as it does for some
    pictures, a copy of the VAE in float32 computes all of them again.
    """
    result = call(components.vae, x.to(components.vae.dtype)).float()
    if components.vae.dtype == torch.float16 and not result.isfinite().all():
        result = call(copy.deepcopy(components.vae).float(), x)
    return result
