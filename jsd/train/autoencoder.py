"""The embedded model's autoencoder: closed-form latents, a decoder trained on them, an encoder regressed onto them.

A patch of 32 x 32 pixels becomes 64 numbers: its principal components, each divided by sigma^0.6 (sigma: the component's standard
deviation over the training pictures), so that the text-to-image model can start to learn at once and large-scale colour keeps more weight
than fine detail. The decoder then learns to draw sharp pictures from them; it sees latents with a little noise, so that small errors of
the text-to-image model do not show as speckle.
"""

from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
import torch.nn.functional as F
from accelerate import Accelerator
from diffusers import AutoencoderKL

from jsd.train.loop import Plan, fit

PATCH = 32
CHANNELS = 64
NOISE = 0.12  # the largest standard deviation of the noise on the decoder's latents, whose own is 1


def make_vae() -> AutoencoderKL:
    """A standard AutoencoderKL of 4.4 M parameters: 256 x 256 x 3 <-> 8 x 8 x 64."""
    levels = (16, 24, 48, 96, 128, 128)
    return AutoencoderKL(
        block_out_channels=levels,
        down_block_types=("DownEncoderBlock2D",) * len(levels),
        up_block_types=("UpDecoderBlock2D",) * len(levels),
        layers_per_block=1,
        latent_channels=CHANNELS,
        norm_num_groups=8,
        sample_size=256,
        scaling_factor=1.0,
    )


def to_tensor(images: np.ndarray) -> torch.Tensor:
    """uint8 (n, h, w, 3) -> float (n, 3, h, w) in [-1, 1]."""
    return (torch.from_numpy(np.ascontiguousarray(images)).permute(0, 3, 1, 2).float() / 127.5 - 1).contiguous()


@dataclass
class LinearLatents:
    """The closed-form map. `basis` (3 * PATCH^2, CHANNELS), `mean` (3 * PATCH^2), `scale` (CHANNELS)."""

    basis: torch.Tensor
    mean: torch.Tensor
    scale: torch.Tensor

    @classmethod
    def fit(cls, images: np.ndarray, count: int = 1500, seed: int = 0) -> "LinearLatents":
        """Principal components of the patches of `count` of the images (uint8, n x h x w x 3)."""
        chosen = np.sort(np.random.default_rng(seed).choice(len(images), min(count, len(images)), replace=False))
        second, first, n = 0, 0, 0
        for part in np.array_split(chosen, max(1, len(chosen) // 100)):
            patches = cls._patches(to_tensor(images[part])).flatten(0, 2)
            second, first, n = second + patches.T @ patches, first + patches.sum(0), n + len(patches)
        mean = first / n
        variance, vectors = torch.linalg.eigh(second / n - torch.outer(mean, mean))
        sigma = variance.flip(0)[:CHANNELS].clamp_min(1e-8).sqrt()
        scale = sigma**-0.6
        return cls(vectors.flip(1)[:, :CHANNELS].contiguous(), mean, scale / (sigma * scale).square().mean().sqrt())

    @staticmethod
    def _patches(x: torch.Tensor) -> torch.Tensor:
        n, c, h, w = x.shape
        split = x.reshape(n, c, h // PATCH, PATCH, w // PATCH, PATCH)
        return split.permute(0, 2, 4, 1, 3, 5).reshape(n, h // PATCH, w // PATCH, -1)

    def encode(self, x: torch.Tensor) -> torch.Tensor:
        """(n, 3, h, w) in [-1, 1] -> (n, CHANNELS, h / PATCH, w / PATCH), overall standard deviation 1."""
        return (((self._patches(x) - self.mean) @ self.basis) * self.scale).permute(0, 3, 1, 2).contiguous()

    def decode(self, z: torch.Tensor) -> torch.Tensor:
        """The linear picture of latents: what the decoder has to beat."""
        n, _, h, w = z.shape
        patches = (z.permute(0, 2, 3, 1) / self.scale) @ self.basis.T + self.mean
        split = patches.reshape(n, h, w, 3, PATCH, PATCH).permute(0, 3, 1, 4, 2, 5)
        return split.reshape(n, 3, h * PATCH, w * PATCH)

    def save(self, file: Path) -> None:
        torch.save(vars(self), file)

    @classmethod
    def load(cls, file: Path) -> "LinearLatents":
        return cls(**torch.load(file, weights_only=True))


def psnr(x: torch.Tensor, y: torch.Tensor) -> float:
    """Peak signal-to-noise ratio in dB of pictures in [-1, 1]."""
    return float(10 * torch.log10(4 / F.mse_loss(x.float(), y.float())))


def picture_loss(x: torch.Tensor, y: torch.Tensor) -> torch.Tensor:
    """Absolute error of the colours and of their differences between neighbours (which keeps edges sharp and flat areas flat)."""
    x, y = x.float(), y.float()
    loss = F.l1_loss(x, y)
    for axis in (2, 3):
        loss = loss + F.l1_loss(x.diff(dim=axis), y.diff(dim=axis))
    return loss


def train_decoder(
    vae: AutoencoderKL, images: np.ndarray, latents: LinearLatents, plan: Plan, folder: Path, accelerator: Accelerator, batch: int = 8
) -> None:
    """Train `vae.decoder` (and post_quant_conv) to draw `images` from their latents."""
    parameters = [*vae.decoder.parameters(), *vae.post_quant_conv.parameters()]
    linear = {}

    def loss_of(step: int, rng: np.random.Generator) -> tuple[torch.Tensor, dict[str, float]]:
        x = to_tensor(images[np.sort(rng.choice(len(images), batch, replace=False))])
        if rng.random() < 0.5:
            x = x.flip(3)
        with torch.no_grad(), torch.autocast("cpu", enabled=False):
            z = latents.encode(x)
            if step % 50 == 0:
                linear["linear_db"] = psnr(latents.decode(z), x)
            z = z + torch.randn_like(z) * torch.rand(len(z), 1, 1, 1) * NOISE
        y = vae.decode(z).sample
        return picture_loss(y, x), {"db": psnr(y.detach(), x), **linear}

    fit("decoder", vae, loss_of, plan, folder, accelerator, [{"params": parameters, "lr_scale": 1.0}])


def train_encoder(
    vae: AutoencoderKL, images: np.ndarray, latents: LinearLatents, plan: Plan, folder: Path, accelerator: Accelerator, batch: int = 16
) -> None:
    """Regress `vae.encoder` (and quant_conv) onto the closed-form latents, with a variance of about nothing."""
    parameters = [*vae.encoder.parameters(), *vae.quant_conv.parameters()]

    def loss_of(step: int, rng: np.random.Generator) -> tuple[torch.Tensor, dict[str, float]]:
        x = to_tensor(images[np.sort(rng.choice(len(images), batch, replace=False))])
        if rng.random() < 0.5:
            x = x.flip(3)
        with torch.no_grad(), torch.autocast("cpu", enabled=False):
            z = latents.encode(x)
        posterior = vae.encode(x).latent_dist
        return F.mse_loss(posterior.mean.float(), z) + 1e-3 * (posterior.logvar.float() + 20).square().mean(), {
            "mse": F.mse_loss(posterior.mean.float(), z).item()
        }

    fit("encoder", vae, loss_of, plan, folder, accelerator, [{"params": parameters, "lr_scale": 1.0}])
