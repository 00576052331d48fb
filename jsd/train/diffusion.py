"""The diffusion loss (the UNet's error in predicting noise or velocity), which every training stage minimises.

`Denoiser` joins text encoder and UNet in one module, so that several processes can train them through one wrapper.
"""

from __future__ import annotations

import hashlib
from collections.abc import Callable

import numpy as np
import torch
import torch.nn.functional as F
from diffusers import DDPMScheduler, UNet2DConditionModel
from transformers import CLIPTextModel

from jsd.errors import TrainingError, shown


class Denoiser(torch.nn.Module):
    """A module of text encoder and UNet that computes the diffusion loss from latents, token ids, noise and timesteps.

    `min_snr` is the gamma of min-SNR weighting (Hang et al. 2023, arXiv 2303.09556, eq. 6; appendix A for
    v-prediction). With None all timesteps have the same weight. `predict(x_t, t, states)` may take the UNet's place, as
    a compiled function of it. Raises `TrainingError` if the scheduler's prediction type is neither epsilon nor
    v_prediction.
    """

    def __init__(
        self,
        text_encoder: CLIPTextModel,
        unet: UNet2DConditionModel,
        scheduler: DDPMScheduler,
        min_snr: float | None = None,
        predict: Callable[..., torch.Tensor] | None = None,
    ):
        super().__init__()
        if scheduler.config.prediction_type not in ("epsilon", "v_prediction"):
            raise TrainingError(
                "the scheduler's prediction_type is {}; epsilon and v_prediction can be trained",
                shown(scheduler.config.prediction_type),
            )
        self.text_encoder, self.unet = text_encoder, unet
        self.scheduler, self.min_snr = scheduler, min_snr
        self.predict = predict

    def forward(self, x_0: torch.Tensor, ids: torch.Tensor, eps: torch.Tensor, t: torch.Tensor) -> torch.Tensor:
        """Return the loss, a scalar. `x_0` (latents), `eps` (noise): (n, c, h, w). `ids`: (n, tokens). `t`: (n,)."""
        velocity = self.scheduler.config.prediction_type == "v_prediction"
        target = self.scheduler.get_velocity(x_0, eps, t) if velocity else eps
        return self.loss(self.predicted(x_0, ids, eps, t), target, t)

    def predicted(self, x_0: torch.Tensor, ids: torch.Tensor, eps: torch.Tensor, t: torch.Tensor) -> torch.Tensor:
        """Return the UNet's prediction, float32 (n, c, h, w). The arguments are those of `forward`."""
        x_t = self.scheduler.add_noise(x_0, eps, t)
        states = self.text_encoder(ids).last_hidden_state
        return (self.predict(x_t, t, states) if self.predict else self.unet(x_t, t, states).sample).float()

    def loss(self, prediction: torch.Tensor, target: torch.Tensor, t: torch.Tensor) -> torch.Tensor:
        """Return the weighted mean square error of predictions (n, c, h, w) at timesteps `t`, a scalar."""
        if self.min_snr is None:
            return F.mse_loss(prediction, target)
        alpha_bar = self.scheduler.alphas_cumprod.to(t.device)[t]
        snr = alpha_bar / (1 - alpha_bar)
        velocity = self.scheduler.config.prediction_type == "v_prediction"
        weight = snr.clamp_max(self.min_snr) / (snr + 1 if velocity else snr)
        return (weight * F.mse_loss(prediction, target, reduction="none").mean((1, 2, 3))).mean()


def draws(keys: list[str], seed: int, step: int, shape: tuple[int, ...], timesteps: int) -> tuple[torch.Tensor, ...]:
    """Return random values for n samples: noise (n, *shape), timesteps (n,), and uniform numbers in [0, 1) (n,).

    The values of a sample depend only on its key, the seed and the step, not on the batch or the process that the
    sample is in. So two processes train like one process with twice the batch.
    """
    noise, t, u = [], [], []
    for key in keys:
        digest = hashlib.sha256(f"{seed}|{step}|{key}".encode()).digest()
        rng = np.random.default_rng(int.from_bytes(digest[:8], "big"))
        noise.append(torch.from_numpy(rng.standard_normal(shape, dtype=np.float32)))
        t.append(int(rng.integers(timesteps)))
        u.append(float(rng.random()))
    return torch.stack(noise), torch.tensor(t), torch.tensor(u)


def device_draws(x_0: torch.Tensor, timesteps: int) -> tuple[torch.Tensor, ...]:
    """Return what `draws` returns, drawn at once on the device of `x_0`, (n, ...), by torch's generator."""
    u, t = torch.rand(2, len(x_0), device=x_0.device)
    return torch.randn_like(x_0), (t * timesteps).long(), u
