"""The training stages that teach an English latent diffusion model Japanese. No stage changes the VAE.

1. `base` trains only the UNet, on English captions, with a text encoder that already knows pictures, like CLIP's. Only
   a model of our own needs it. Stable Diffusion is already past this stage.
2. `stage1` trains a new Japanese text encoder with its own tokenizer, under the diffusion loss. The UNet is frozen. The
   text encoder learns to say in Japanese what the UNet already understands.
3. `stage2` trains text encoder and UNet together, on Japanese captions. The UNet learns how Japanese pictures look.

The stages follow the 2022 README ("Training") and PITI (Wang et al. 2022, arXiv 2205.12952, sec. 3.2).
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path
from types import MappingProxyType
from typing import Any

import numpy as np
import torch
from accelerate import Accelerator
from diffusers import AutoencoderKL, DDPMScheduler, UNet2DConditionModel
from transformers import CLIPTextConfig, CLIPTextModel

from jsd.tokenizer import Tokenizer
from jsd.train import trainer
from jsd.train.checkpoints import Data
from jsd.train.data import Stream
from jsd.train.diffusion import Denoiser, device_draws, draws
from jsd.train.trainer import Plan, set_trained


@dataclass(frozen=True)
class Stage:
    """A training stage: the parts it trains, whether the text encoder starts afresh, and the default learning rate."""

    trains: tuple[str, ...]
    fresh_text: bool  # whether the text encoder begins with random weights
    lr: float  # the default peak of the learning rate


STAGES = {
    "base": Stage(("unet",), fresh_text=False, lr=1e-4),
    "stage1": Stage(("text_encoder",), fresh_text=True, lr=1e-4),
    "stage2": Stage(("text_encoder", "unet"), fresh_text=False, lr=1e-5),
}
# From the step and its generator to a batch: latents x_0 (n, c, h, w), token ids (n, tokens), n sample keys. With None
# for the keys, noise and timesteps are drawn on the device of x_0, which takes less time.
Source = Callable[[int, np.random.Generator], tuple[torch.Tensor, torch.Tensor, list[str] | None]]


def fresh_text_encoder(config: CLIPTextConfig, tokenizer: Tokenizer) -> CLIPTextModel:
    """Return a text encoder with random weights: layers as in `config`, vocabulary and length as in `tokenizer`."""
    return CLIPTextModel(
        CLIPTextConfig(
            **{
                **config.to_dict(),
                "vocab_size": tokenizer.vocabulary_size,
                "max_position_embeddings": tokenizer.max_length,
                "pad_token_id": tokenizer.pad_id,
                "bos_token_id": None,
                "eos_token_id": tokenizer.eos_id,
            }
        )
    )


def noise_schedule(config: dict) -> DDPMScheduler:
    """Return the scheduler that adds noise in training. `config`: content of a model's scheduler_config.json."""
    known = ("num_train_timesteps", "beta_start", "beta_end", "beta_schedule", "trained_betas", "prediction_type")
    return DDPMScheduler(**{name: config[name] for name in known if name in config}, clip_sample=False)


def train_stage(
    name: str,
    text_encoder: CLIPTextModel,
    unet: UNet2DConditionModel,
    scheduler: DDPMScheduler,
    source: Source,
    empty: torch.Tensor,
    plan: Plan,
    folder: Path,
    accelerator: Accelerator,
    min_snr: float | None = None,
    trains: Iterable[str] | None = None,
    predict: Callable[..., torch.Tensor] | None = None,
    **settings: Any,
) -> None:
    """Train text encoder, UNet or both, as stage `name` of STAGES says, in place. They end with averaged weights (EMA).

    `trains` names other parts than STAGES does. `Denoiser` explains `min_snr` and `predict`, `train_denoiser` the other
    arguments. `settings` are more of its keyword arguments.
    """
    model = Denoiser(text_encoder, unet, scheduler, min_snr, predict)
    set_trained(model, trains or STAGES[name].trains)
    train_denoiser(name, model, source, empty, plan, folder, accelerator, **settings)


def train_denoiser(
    name: str,
    model: Denoiser,
    source: Source,
    empty: torch.Tensor,
    plan: Plan,
    folder: Path,
    accelerator: Accelerator,
    dropout: float = 0.1,
    timestep: Callable[[torch.Tensor, int], torch.Tensor] = lambda t, step: t,
    data: Data | None = None,
    on_save: Callable[[int], None] = lambda step: None,
    terms: Mapping[str, Any] = MappingProxyType({}),
) -> None:
    """Train the parameters of `model` that are not frozen, in place, under the diffusion loss.

    `source(step, rng)` returns a batch: latents, token ids, sample keys. For a share `dropout` of the samples, `empty`
    (the ids of an empty caption, (tokens,)) replaces the ids. Classifier-free guidance needs it (Ho and Salimans 2022,
    arXiv 2207.12598, sec. 3.2). `timestep(t, step)` maps uniform timesteps to the ones that are used.
    `jsd.train.trainer.train` explains `data`, `on_save` and `terms`, and the errors.
    """
    timesteps = model.scheduler.config.num_train_timesteps
    terms = {"dropout": dropout, "min_snr": model.min_snr, **terms}

    def loss_of(model: torch.nn.Module, step: int, rng: np.random.Generator) -> tuple[torch.Tensor, dict[str, float]]:
        x_0, ids, keys = source(step, rng)
        shape = tuple(x_0.shape[1:])
        eps, t, u = draws(keys, plan.seed, step, shape, timesteps) if keys else device_draws(x_0, timesteps)
        ids = torch.where(u[:, None] < dropout, empty, ids)
        return model(*(x.to(accelerator.device) for x in (x_0, ids, eps, timestep(t, step)))), {}

    trainer.train(name, model, loss_of, plan, folder, accelerator, on_save=on_save, data=data, terms=terms)


def freeze(vae: AutoencoderKL, accelerator: Accelerator) -> None:
    """Freeze a VAE, and move it to the accelerator's device in the dtype that mixed precision computes in, in place.

    If it stayed in float32, autocast would cast all its weights at every step.
    """
    dtype = {"bf16": torch.bfloat16, "fp16": torch.float16}.get(accelerator.mixed_precision, torch.float32)
    vae.requires_grad_(False).to(accelerator.device, dtype)


def latents_of(stream: Stream, vae: AutoencoderKL, tokenizer: Tokenizer, seed: int = 0) -> Source:
    """Return a function that encodes the stream's next batch: (step, rng) -> latents, token ids, sample keys."""

    def source(step: int, rng: np.random.Generator) -> tuple[torch.Tensor, torch.Tensor, list[str]]:
        batch = next(stream)
        with torch.no_grad():
            posterior = vae.encode(batch.pixels.to(vae.device, vae.dtype)).latent_dist
            noise = draws(batch.keys, seed, -1, tuple(posterior.mean.shape[1:]), 1)[0]
            x_0 = (posterior.mean + posterior.std * noise.to(vae.device)).float() * vae.config.scaling_factor
        return x_0, torch.tensor([tokenizer(text).ids for text in batch.captions]), batch.keys

    return source
