"""Train the embedded model's autoencoder: first the decoder on closed-form latents, then the encoder to predict them.

Closed-form latents are scaled principal components of patches (see `embedded.latents`). Trained all at once from random
weights, the decoder stays blurred for hours, because nothing tells it what to represent at the resolutions in between.
So the decoder is divided into segments, which end at 32, 64, 128 and 256 pixels, and run k trains the first k of them.
In each of the first three, the first output channels are trained to be the principal components of smaller patches.
Most steps are taken while the outputs are still small, and so are cheap. The encoder has such targets too.

Random noise on the latents makes the decoder ignore small errors of the text-to-image model, which would show as
speckle.
"""

from collections.abc import Callable
from pathlib import Path

import numpy as np
import torch
import torch.nn.functional as F
from accelerate import Accelerator
from diffusers import AutoencoderKL

from embedded.latents import LinearLatents
from jsd.train import trainer
from jsd.train.trainer import Plan
from jsd.vae import to_tensor

NOISE = 0.12  # the largest standard deviation of the noise; that of the latents is 1
# The intermediate targets as (patch, components): of the decoder at 32, 64 and 128 pixels ...
DECODER_TARGETS = ((8, 16), (4, 12), (2, 8))
# ... and of the encoder at 128, 64, 32 and 16 pixels.
ENCODER_TARGETS = ((2, 8), (4, 12), (8, 16), (16, 32))


def psnr(x: torch.Tensor, y: torch.Tensor) -> float:
    """Return the peak signal-to-noise ratio in dB between pictures with values in [-1, 1]."""
    return float(10 * torch.log10(4 / F.mse_loss(x.float(), y.float())))


def picture_loss(x: torch.Tensor, y: torch.Tensor) -> torch.Tensor:
    """Return the mean absolute error of the colours plus that of the differences between neighbouring pixels. The
    second part keeps edges sharp and flat areas flat.
    """
    x, y = x.float(), y.float()
    loss = F.l1_loss(x, y)
    for axis in (2, 3):
        loss = loss + F.l1_loss(x.diff(dim=axis), y.diff(dim=axis))
    return loss


def segments(vae: AutoencoderKL) -> list[torch.nn.Sequential]:
    """Return the decoder of `vae` as four modules: latents to 32, to 64, to 128 and to 256 pixels. They share the
    weights of `vae`. Run one after the other, they compute `vae.decode`.
    """
    decoder = vae.decoder
    up = decoder.up_blocks
    return [
        torch.nn.Sequential(vae.post_quant_conv, decoder.conv_in, decoder.mid_block, up[0], up[1]),
        torch.nn.Sequential(up[2]),
        torch.nn.Sequential(up[3]),
        torch.nn.Sequential(up[4], up[5], decoder.conv_norm_out, decoder.conv_act, decoder.conv_out),
    ]


def train_decoder(
    vae: AutoencoderKL,
    images: np.ndarray,
    latents: LinearLatents,
    plans: list[tuple[Plan, int]],
    folder: Path,
    accelerator: Accelerator,
    on_save: Callable[[int], None] = lambda step: None,
) -> None:
    """Train the decoder of `vae` in place, in four runs. Run k trains the first k of its `segments` together.

    `images` are the training pictures, uint8 (n, 256, 256, 3). `latents`, on the accelerator's device, turns them into
    the decoder's inputs. `plans`
    holds the plan and the batch size of each run.
    """
    device = accelerator.device
    targets = _intermediate_targets(DECODER_TARGETS, images, folder, device)
    parts = segments(vae)

    def loss_of_first(count: int, batch: int) -> Callable:
        def loss_of(
            model: torch.nn.Module, step: int, rng: np.random.Generator
        ) -> tuple[torch.Tensor, dict[str, float]]:
            x = _sample(images, batch, rng).to(device)
            with torch.no_grad(), torch.autocast(device.type, enabled=False):
                h = _noisy(latents.encode(x))
                wanted = [target.encode(x) for target in targets[:count]]
            loss, figures = torch.zeros((), device=device), {}
            for k, part in enumerate(parts[:count]):
                h = part(h)
                if k < len(targets):
                    y = h[:, : wanted[k].shape[1]].float()
                    loss = loss + F.mse_loss(y, wanted[k]) * (1.0 if count <= len(targets) else 0.1)
                    with torch.no_grad():
                        figures[f"db_{k}"] = psnr(targets[k].decode(y), x)
                else:
                    loss = loss + picture_loss(h, x)
                    figures["db"] = psnr(h.detach(), x)
            return loss, figures

        return loss_of

    for k, (plan, batch) in enumerate(plans, start=1):
        trainer.train(
            f"decoder-{k}",
            torch.nn.ModuleList(parts[:k]),
            loss_of_first(k, batch),
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
    """Train the encoder of `vae` in place to predict closed-form latents, with a variance close to zero. `images` are
    the training pictures, uint8 (n, 256, 256, 3). `latents` computes the latents to predict.
    """
    device = accelerator.device
    targets = [*_intermediate_targets(ENCODER_TARGETS, images, folder, device), latents]
    outputs: list[torch.Tensor] = []
    hooks = [
        block.register_forward_hook(lambda module, inputs, output: outputs.append(output))
        for block in vae.encoder.down_blocks[: len(targets)]
    ]

    def loss_of(model: torch.nn.Module, step: int, rng: np.random.Generator) -> tuple[torch.Tensor, dict[str, float]]:
        x = _sample(images, batch, rng).to(device)
        with torch.no_grad(), torch.autocast(device.type, enabled=False):
            wanted = [target.encode(x) for target in targets]
        outputs.clear()
        posterior = vae.encode(x).latent_dist
        mse = F.mse_loss(posterior.mean.float(), wanted[-1])
        loss = mse + 1e-3 * (posterior.logvar.float() + 20).square().mean()
        for output, target in zip(outputs, wanted, strict=True):
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


def _intermediate_targets(
    sizes: tuple[tuple[int, int], ...], images: np.ndarray, folder: Path, device: torch.device
) -> list[LinearLatents]:
    """Return a map from pictures to latents, on `device`, for each (patch side, number of components) of `sizes`. Each
    is computed from `images` once and cached in `folder` as rung-PATCH.pt.
    """
    return [
        LinearLatents.cached(folder / f"rung-{patch}.pt", images, device, patch=patch, channels=channels, count=300)
        for patch, channels in sizes
    ]


def _sample(images: np.ndarray, batch: int, rng: np.random.Generator) -> torch.Tensor:
    """Choose `batch` pictures at random: float (batch, 3, h, w) in [-1, 1]. In half of all calls they are mirrored."""
    x = to_tensor(images[np.sort(rng.choice(len(images), batch, replace=False))]).contiguous()
    return x.flip(3) if rng.random() < 0.5 else x


def _noisy(z: torch.Tensor) -> torch.Tensor:
    """Return the latents plus noise. Its standard deviation is random for each picture, from 0 to NOISE."""
    return z + torch.randn_like(z) * torch.rand(len(z), 1, 1, 1, device=z.device) * NOISE
