"""The diffusion loss that every stage trains under: text encoder and UNet in one module, so that accelerate can spread
it over processes.
"""

import hashlib

import numpy as np
import torch
import torch.nn.functional as F
from diffusers import DDPMScheduler, UNet2DConditionModel
from transformers import CLIPTextModel


class Denoiser(torch.nn.Module):
    """Token ids and noisy latents to the loss of what the UNet makes of them.

    `min_snr` weights the timesteps as min-SNR-gamma does (arXiv 2303.09556, eq. 6, with v-prediction's from appendix
    A); None weights all alike. Raises ValueError for a prediction type other than epsilon and v_prediction.
    """

    def __init__(
        self,
        text_encoder: CLIPTextModel,
        unet: UNet2DConditionModel,
        scheduler: DDPMScheduler,
        min_snr: float | None = None,
    ):
        super().__init__()
        if scheduler.config.prediction_type not in ("epsilon", "v_prediction"):
            raise ValueError(
                f"prediction_type {scheduler.config.prediction_type!r} of the scheduler's config; "
                "epsilon and v_prediction can be trained"
            )
        self.text_encoder, self.unet = text_encoder, unet
        self.scheduler, self.min_snr = scheduler, min_snr

    def forward(self, x_0: torch.Tensor, ids: torch.Tensor, eps: torch.Tensor, t: torch.Tensor) -> torch.Tensor:
        """`x_0`, `eps` (n, c, h, w); `ids` (n, tokens); `t` (n) from 0 to the number of timesteps; a scalar."""
        x_t = self.scheduler.add_noise(x_0, eps, t)
        seen = self.unet(x_t, t, self.text_encoder(ids).last_hidden_state).sample.float()
        velocity = self.scheduler.config.prediction_type == "v_prediction"
        target = self.scheduler.get_velocity(x_0, eps, t) if velocity else eps
        if self.min_snr is None:
            return F.mse_loss(seen, target)
        share = self.scheduler.alphas_cumprod.to(t.device)[t]
        snr = share / (1 - share)
        weight = snr.clamp_max(self.min_snr) / (snr + 1 if velocity else snr)
        return (weight * F.mse_loss(seen, target, reduction="none").mean((1, 2, 3))).mean()


def draws(keys: list[str], seed: int, step: int, shape: tuple[int, ...], timesteps: int) -> tuple[torch.Tensor, ...]:
    """What chance decides for samples: noise (n, *shape), timesteps (n), and a number from 0 to 1 each (n).

    A sample's depend on its key, the seed and the step alone, not on the batch or the process it is in: two processes
    train as one does with twice the batch.
    """
    noise, t, u = [], [], []
    for key in keys:
        digest = hashlib.sha256(f"{seed}|{step}|{key}".encode()).digest()
        rng = np.random.default_rng(int.from_bytes(digest[:8], "big"))
        noise.append(torch.from_numpy(rng.standard_normal(shape, dtype=np.float32)))
        t.append(int(rng.integers(timesteps)))
        u.append(float(rng.random()))
    return torch.stack(noise), torch.tensor(t), torch.tensor(u)
