"""Closed-form latents: the principal components of pixel patches, scaled.

A patch of 32 x 32 pixels becomes 64 numbers, its first principal components. Each is divided by sigma^0.6, where sigma
is the component's standard deviation over the training pictures. Divided by sigma, all would weigh alike; with the
exponent 0.6, large areas still weigh more than fine detail. These latents need no training, so the text-to-image model
does not have to wait for the autoencoder.
"""

from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch

from embedded.networks import CHANNELS
from jsd.atomic import atomic_file
from jsd.errors import TrainingError
from jsd.train.options import first_line
from jsd.vae import to_tensor

PATCH = 32  # pixels per side


@dataclass
class LinearLatents:
    """A linear map from pixel patches to latents, with an approximate inverse.

    A patch has `patch` x `patch` pixels. `basis` (3 * patch^2, channels) holds the principal components, `mean`
    (3 * patch^2) the mean patch, and `scale` (channels) the factors that the components are multiplied by.
    """

    patch: int
    basis: torch.Tensor
    mean: torch.Tensor
    scale: torch.Tensor

    @classmethod
    def from_images(
        cls,
        images: np.ndarray,
        patch: int = PATCH,
        channels: int = CHANNELS,
        count: int = 1500,
        seed: int = 0,
        device: torch.device | str = "cpu",
    ) -> "LinearLatents":
        """Compute the map, on `device`, from the patches of `count` random pictures of `images`, uint8 (n, h, w, 3)."""
        chosen = np.sort(np.random.default_rng(seed).choice(len(images), min(count, len(images)), replace=False))
        second, first, n = 0, 0, 0
        for part in np.array_split(chosen, max(1, len(chosen) // 100)):
            patches = split_into_patches(to_tensor(images[part]).to(device), patch).flatten(0, 2)
            second, first, n = second + patches.T @ patches, first + patches.sum(0), n + len(patches)
        mean = first / n
        variance, vectors = torch.linalg.eigh(second / n - torch.outer(mean, mean))
        sigma = variance.flip(0)[:channels].clamp_min(1e-8).sqrt()
        scale = sigma**-0.6
        return cls(
            patch, vectors.flip(1)[:, :channels].contiguous(), mean, scale / (sigma * scale).square().mean().sqrt()
        )

    @classmethod
    def cached(cls, file: Path, images: np.ndarray, device: torch.device, **settings: int) -> "LinearLatents":
        """Read the linear map from `file` onto `device`. If the file is missing, compute the map by `from_images` and
        write it. Raises `TrainingError` if the file is unreadable.
        """
        if not file.exists():
            with atomic_file(file) as part:
                torch.save(vars(cls.from_images(images, **settings, device=device)), part)
        return cls(**read_tensors(file, device))

    def encode(self, x: torch.Tensor) -> torch.Tensor:
        """Return the latents (n, channels, h / patch, w / patch) of pictures (n, 3, h, w) in [-1, 1]. Over the training
        pictures and all channels together, the latents have a standard deviation of about 1.
        """
        patches = split_into_patches(x, self.patch)
        return (((patches - self.mean) @ self.basis) * self.scale).permute(0, 3, 1, 2).contiguous()

    def decode(self, z: torch.Tensor) -> torch.Tensor:
        """Return the blurred pictures (n, 3, h * patch, w * patch) that latents (n, channels, h, w) describe."""
        n, _, h, w = z.shape
        patches = (z.permute(0, 2, 3, 1) / self.scale) @ self.basis.T + self.mean
        split = patches.reshape(n, h, w, 3, self.patch, self.patch).permute(0, 3, 1, 4, 2, 5)
        return split.reshape(n, 3, h * self.patch, w * self.patch)


def read_tensors(file: Path, device: torch.device | str) -> Any:
    """Return what `torch.save` wrote to `file`, on `device`. Raises `TrainingError` if the file is unreadable."""
    try:
        return torch.load(file, weights_only=True, map_location=device)
    except Exception as error:
        raise TrainingError(f"{file}: unreadable ({first_line(error)}); delete it, and it is made again") from error


def split_into_patches(x: torch.Tensor, patch: int) -> torch.Tensor:
    """Split pictures (n, c, h, w) into patches, (n, h / patch, w / patch, c * patch^2)."""
    n, c, h, w = x.shape
    split = x.reshape(n, c, h // patch, patch, w // patch, patch)
    return split.permute(0, 2, 4, 1, 3, 5).reshape(n, h // patch, w // patch, -1)
