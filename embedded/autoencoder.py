"""The embedded model's autoencoder: closed-form latents, a decoder trained on them, an encoder regressed onto them.

A patch of 32 x 32 pixels becomes 64 numbers: its principal components, each divided by sigma^0.6 (sigma: the
component's standard deviation over the training pictures). So the text-to-image model can start to learn at once, and
large areas keep more weight than fine detail.

From scratch such a decoder takes hours, because it has to invent a representation at every resolution. So it grows, and
each resolution is given one: after the up block that ends at 32, 64 and 128 pixels, the first channels are to be the
principal components of smaller patches. Most steps are taken while pictures are still small, and cheap. The latents get
a little noise, so that small errors of the text-to-image model do not show as speckle.
"""

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
import torch.nn.functional as F
from accelerate import Accelerator
from diffusers import AutoencoderKL
from diffusers.models.resnet import ResnetBlock2D

from jsd.train import trainer
from jsd.train.trainer import Plan, save_atomically

PATCH = 32
CHANNELS = 64
NOISE = 0.12  # the largest standard deviation of the noise on the latents a segment is fed with; theirs is 1
RUNGS = ((8, 16), (4, 12), (2, 8))  # (patch, components) that the decoder holds at 32, 64 and 128 pixels
ENCODER_RUNGS = ((2, 8), (4, 12), (8, 16), (16, 32))  # and the encoder at 128, 64, 32 and 16


def make_vae() -> AutoencoderKL:
    """A standard AutoencoderKL of 4.7 M parameters: 256 x 256 x 3 <-> 8 x 8 x 64."""
    levels = (16, 24, 48, 96, 128, 128)
    vae = AutoencoderKL(
        block_out_channels=levels,
        down_block_types=("DownEncoderBlock2D",) * len(levels),
        up_block_types=("UpDecoderBlock2D",) * len(levels),
        layers_per_block=1,
        latent_channels=CHANNELS,
        norm_num_groups=8,
        sample_size=256,
        scaling_factor=1.0,
    )
    for module in vae.decoder.modules():
        if isinstance(module, ResnetBlock2D):  # residual branches start at nothing
            torch.nn.init.zeros_(module.conv2.weight)
            torch.nn.init.zeros_(module.conv2.bias)
    return vae.to(memory_format=torch.channels_last)  # a step of the decoder's last segment: 1.07 s instead of 1.27


def to_tensor(images: np.ndarray) -> torch.Tensor:
    """uint8 (n, h, w, 3) -> float (n, 3, h, w) in [-1, 1]."""
    return (torch.from_numpy(np.ascontiguousarray(images)).permute(0, 3, 1, 2).float() / 127.5 - 1).contiguous()


@dataclass
class LinearLatents:
    """A closed-form map of patches. `basis` (3 * patch^2, channels), `mean` (3 * patch^2), `scale` (channels)."""

    patch: int
    basis: torch.Tensor
    mean: torch.Tensor
    scale: torch.Tensor

    @classmethod
    def from_images(
        cls, images: np.ndarray, patch: int = PATCH, channels: int = CHANNELS, count: int = 1500, seed: int = 0
    ) -> "LinearLatents":
        """The first principal components of the patches of `count` of the images (uint8, n x h x w x 3)."""
        chosen = np.sort(np.random.default_rng(seed).choice(len(images), min(count, len(images)), replace=False))
        second, first, n = 0, 0, 0
        for part in np.array_split(chosen, max(1, len(chosen) // 100)):
            patches = cls._patches(to_tensor(images[part]), patch).flatten(0, 2)
            second, first, n = second + patches.T @ patches, first + patches.sum(0), n + len(patches)
        mean = first / n
        variance, vectors = torch.linalg.eigh(second / n - torch.outer(mean, mean))
        sigma = variance.flip(0)[:channels].clamp_min(1e-8).sqrt()
        scale = sigma**-0.6
        return cls(
            patch, vectors.flip(1)[:, :channels].contiguous(), mean, scale / (sigma * scale).square().mean().sqrt()
        )

    @staticmethod
    def _patches(x: torch.Tensor, patch: int) -> torch.Tensor:
        n, c, h, w = x.shape
        split = x.reshape(n, c, h // patch, patch, w // patch, patch)
        return split.permute(0, 2, 4, 1, 3, 5).reshape(n, h // patch, w // patch, -1)

    def encode(self, x: torch.Tensor) -> torch.Tensor:
        """(n, 3, h, w) in [-1, 1] -> (n, channels, h / patch, w / patch), overall standard deviation 1."""
        return (((self._patches(x, self.patch) - self.mean) @ self.basis) * self.scale).permute(0, 3, 1, 2).contiguous()

    def decode(self, z: torch.Tensor) -> torch.Tensor:
        """The linear picture of latents: what the decoder has to beat."""
        n, _, h, w = z.shape
        patches = (z.permute(0, 2, 3, 1) / self.scale) @ self.basis.T + self.mean
        split = patches.reshape(n, h, w, 3, self.patch, self.patch).permute(0, 3, 1, 4, 2, 5)
        return split.reshape(n, 3, h * self.patch, w * self.patch)

    @classmethod
    def cached(cls, file: Path, images: np.ndarray, **kwargs: int) -> "LinearLatents":
        """Read the map from `file`, or fit it and write it there."""
        if not file.exists():
            save_atomically(vars(cls.from_images(images, **kwargs)), file)
        return cls(**torch.load(file, weights_only=True))


def psnr(x: torch.Tensor, y: torch.Tensor) -> float:
    """Peak signal-to-noise ratio in dB of pictures in [-1, 1]."""
    return float(10 * torch.log10(4 / F.mse_loss(x.float(), y.float())))


def picture_loss(x: torch.Tensor, y: torch.Tensor) -> torch.Tensor:
    """Absolute error of the colours and of their differences between neighbours (which keeps edges sharp and
    flat areas flat).
    """
    x, y = x.float(), y.float()
    loss = F.l1_loss(x, y)
    for axis in (2, 3):
        loss = loss + F.l1_loss(x.diff(dim=axis), y.diff(dim=axis))
    return loss


def segments(vae: AutoencoderKL) -> list[torch.nn.Sequential]:
    """The decoder cut at the rungs: latents -> 32 px -> 64 px -> 128 px -> picture. Run in order they are
    `vae.decode`.
    """
    decoder = vae.decoder
    up = decoder.up_blocks
    return [
        torch.nn.Sequential(vae.post_quant_conv, decoder.conv_in, decoder.mid_block, up[0], up[1]),
        torch.nn.Sequential(up[2]),
        torch.nn.Sequential(up[3]),
        torch.nn.Sequential(up[4], up[5], decoder.conv_norm_out, decoder.conv_act, decoder.conv_out),
    ]


def _sample(images: np.ndarray, batch: int, rng: np.random.Generator) -> torch.Tensor:
    x = to_tensor(images[np.sort(rng.choice(len(images), batch, replace=False))])
    return x.flip(3) if rng.random() < 0.5 else x


def _noisy(z: torch.Tensor) -> torch.Tensor:
    return z + torch.randn_like(z) * torch.rand(len(z), 1, 1, 1) * NOISE


def train_decoder(
    vae: AutoencoderKL,
    images: np.ndarray,
    latents: LinearLatents,
    plans: list[tuple[Plan, int]],
    folder: Path,
    accelerator: Accelerator,
    on_save: Callable[[int], None] = lambda step: None,
) -> None:
    """Train the decoder of `vae`: one (plan, batch size) for each of its `segments`, trained with those before it."""
    rungs = [LinearLatents.cached(folder / f"rung-{p}.pt", images, patch=p, channels=c, count=300) for p, c in RUNGS]
    parts = segments(vae)

    def grown_to(count: int, batch: int) -> Callable:
        def loss_of(
            model: torch.nn.Module, step: int, rng: np.random.Generator
        ) -> tuple[torch.Tensor, dict[str, float]]:
            x = _sample(images, batch, rng)
            with torch.no_grad(), torch.autocast("cpu", enabled=False):
                h = _noisy(latents.encode(x))
                targets = [rung.encode(x) for rung in rungs[:count]]
            loss, figures = torch.zeros(()), {}
            for k, part in enumerate(parts[:count]):
                h = part(h)
                if k < len(rungs):
                    y = h[:, : targets[k].shape[1]].float()
                    loss = loss + F.mse_loss(y, targets[k]) * (1.0 if count <= len(rungs) else 0.1)
                    with torch.no_grad():
                        figures[f"db_{k}"] = psnr(rungs[k].decode(y), x)
                else:
                    loss = loss + picture_loss(h, x)
                    figures["db"] = psnr(h.detach(), x)
            return loss, figures

        return loss_of

    for k, (plan, batch) in enumerate(plans, start=1):
        trainer.train(
            f"decoder-{k}",
            torch.nn.ModuleList(parts[:k]),
            grown_to(k, batch),
            plan,
            folder,
            accelerator,
            on_save=on_save,
            terms={"batch": batch, "after": [[earlier.terms(), size] for earlier, size in plans[: k - 1]]},
        )


def train_encoder(
    vae: AutoencoderKL,
    images: np.ndarray,
    latents: LinearLatents,
    plan: Plan,
    folder: Path,
    accelerator: Accelerator,
    batch: int = 16,
) -> None:
    """Regress the encoder of `vae` onto the closed-form latents, with a variance of about nothing.

    As in the decoder, every resolution on the way is told what to hold: the principal components of its patches.
    """
    rungs = [
        LinearLatents.cached(folder / f"rung-{p}.pt", images, patch=p, channels=c, count=300) for p, c in ENCODER_RUNGS
    ]
    outputs: list[torch.Tensor] = []
    hooks = [
        block.register_forward_hook(lambda module, inputs, output: outputs.append(output))
        for block in vae.encoder.down_blocks[: len(rungs) + 1]
    ]

    def loss_of(model: torch.nn.Module, step: int, rng: np.random.Generator) -> tuple[torch.Tensor, dict[str, float]]:
        x = _sample(images, batch, rng)
        with torch.no_grad(), torch.autocast("cpu", enabled=False):
            targets = [linear.encode(x) for linear in (*rungs, latents)]
        outputs.clear()
        posterior = vae.encode(x).latent_dist
        mse = F.mse_loss(posterior.mean.float(), targets[-1])
        loss = mse + 1e-3 * (posterior.logvar.float() + 20).square().mean()
        for output, target in zip(outputs, targets, strict=True):
            loss = loss + 0.3 * F.mse_loss(output[:, : target.shape[1]].float(), target)
        return loss, {"mse": mse.item()}

    trainer.train(
        "encoder",
        torch.nn.ModuleList([vae.encoder, vae.quant_conv]),
        loss_of,
        plan,
        folder,
        accelerator,
        terms={"batch": batch},
    )
    for hook in hooks:
        hook.remove()
