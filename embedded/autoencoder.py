"""Train the embedded model's autoencoder, all at once, on scenes.

Its latents are whitened: every channel has mean 0 and variance 1 over all pictures. During the training a batch norm
does it, which is folded into the 1 x 1 convolution before it at the end, so that the result is a plain autoencoder.
Noise on the latents makes the decoder ignore small errors of the text-to-image model.
"""

import math
from collections.abc import Callable
from pathlib import Path

import numpy as np
import torch
import torch.nn.functional as F
from accelerate import Accelerator
from diffusers import AutoencoderKL

from jsd.train import trainer
from jsd.train.trainer import Plan

NOISE = 0.1  # the largest standard deviation of the noise; that of the latents is 1
SPREAD = 0.02  # the standard deviation of the posterior
STATISTICS = 2500  # pictures that the folded norm's mean and variance are taken from, at most
# From a size, a generator and a device to pictures there, float (size, 3, h, w) in [-1, 1].
Batches = Callable[[int, np.random.Generator, torch.device], torch.Tensor]


def psnr(x: torch.Tensor, y: torch.Tensor) -> float:
    """Return the peak signal-to-noise ratio in dB between pictures with values in [-1, 1]."""
    return float(10 * torch.log10(4 / F.mse_loss(x.float(), y.float())))


def picture_loss(y: torch.Tensor, x: torch.Tensor) -> torch.Tensor:
    """Return the mean absolute error of the colours at four resolutions, plus that of the differences between
    neighbouring pixels at the finest two, plus twice the mean square error. The differences keep edges sharp.
    """
    loss = 2 * F.mse_loss(y, x)
    for level in range(4):
        loss = loss + (0.5 if level else 1.0) * F.l1_loss(y, x)
        if level < 2:
            loss = loss + 0.5 * sum(F.l1_loss(y.diff(dim=axis), x.diff(dim=axis)) for axis in (2, 3))
        if level < 3:
            y, x = F.avg_pool2d(y, 2), F.avg_pool2d(x, 2)
    return loss


class Whitened(torch.nn.Module):
    """An autoencoder with a batch norm on its latents, and the loss that trains it."""

    def __init__(self, vae: AutoencoderKL):
        super().__init__()
        self.vae = vae
        self.norm = torch.nn.BatchNorm2d(vae.config.latent_channels, affine=False, momentum=0.01)

    def down(self, x: torch.Tensor) -> torch.Tensor:
        """Return the latents of pictures before the norm."""
        return self.vae.quant_conv(self.vae.encoder(x)).chunk(2, 1)[0]

    def up(self, z: torch.Tensor) -> torch.Tensor:
        """Return the pictures of latents."""
        return self.vae.decoder(self.vae.post_quant_conv(z))

    def encode(self, x: torch.Tensor) -> torch.Tensor:
        """Return the latents (n, c, h / 8, w / 8) of pictures (n, 3, h, w)."""
        return self.norm(self.down(x).float())

    def forward(self, x: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        """Return the loss of pictures, and their mean square error."""
        z = self.encode(x)
        z = z + NOISE * torch.rand(len(z), 1, 1, 1, device=z.device) * torch.randn_like(z)
        y = self.up(z).float()
        return picture_loss(y, x), F.mse_loss(y, x)

    @torch.no_grad()
    def fold(self) -> None:
        """Fold the norm into the convolution before it, in place: the autoencoder's own latents are then whitened. Its
        posterior gets the spread SPREAD.
        """
        conv, channels = self.vae.quant_conv, self.norm.num_features
        deviation = (self.norm.running_var + self.norm.eps).sqrt()
        conv.weight[:channels] /= deviation[:, None, None, None]
        conv.bias[:channels] = (conv.bias[:channels] - self.norm.running_mean) / deviation
        conv.weight[channels:] = 0
        conv.bias[channels:] = 2 * math.log(SPREAD)


def train(
    vae: AutoencoderKL,
    pictures: Batches,
    plan: Plan,
    batch: int,
    folder: Path,
    accelerator: Accelerator,
    on_save: Callable[[int], None] = lambda step: None,
    statistics: int = STATISTICS,
    compiled: bool = False,
) -> None:
    """Train `vae` in place on `pictures`. It ends frozen, on the accelerator's device, with latents that are white over
    `statistics` pictures. `compiled` trains it with encoder and decoder compiled.
    """
    model = Whitened(vae)
    if compiled:
        model.down, model.up = torch.compile(model.down), torch.compile(model.up)

    def loss_of(model: torch.nn.Module, step: int, rng: np.random.Generator) -> tuple[torch.Tensor, dict]:
        x = pictures(batch, rng, accelerator.device)
        loss, mse = model(x.contiguous(memory_format=torch.channels_last))
        return loss, {"db": 10 * torch.log10(4 / mse.detach())}

    trainer.train("autoencoder", model, loss_of, plan, folder, accelerator, on_save=on_save, terms={"batch": batch})
    if compiled:  # what follows is over before compiling it for another context would pay
        del model.down, model.up
    model.to(accelerator.device).train()
    model.norm.reset_running_stats()
    model.norm.momentum = None  # the mean over all batches, with the averaged weights
    rng = np.random.default_rng(plan.seed)
    with torch.no_grad():
        for _ in range(-(-statistics // batch)):
            model.encode(pictures(batch, rng, accelerator.device))
    model.fold()
    vae.eval().requires_grad_(False)
