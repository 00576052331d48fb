"""The stages that make an English latent diffusion model speak Japanese, as data, and what they share.

1. `base`: the UNet alone, on English captions, with a text encoder that knows pictures already, as Stable Diffusion's
   (CLIP's) does. Only for a model of our own: Stable Diffusion has this stage behind it.
2. `stage1`: a Japanese text encoder from scratch under the diffusion loss, all else frozen, with a tokenizer of its
   own. It learns to say in Japanese what the UNet understands.
3. `stage2`: text encoder and UNet together, on Japanese captions: what Japanese pictures look like.

After the 2022 README ("Training") and PITI (arXiv 2205.12952, sec. 3.2). The VAE stays as it is throughout.
"""

from collections.abc import Callable, Mapping
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
from jsd.train.data import Stream
from jsd.train.diffusion import Denoiser, draws
from jsd.train.trainer import Data, Plan, set_trained


@dataclass(frozen=True)
class Stage:
    """`trains`: the parts that change; `fresh_text`: whether the text encoder begins from scratch; `lr`: what suits."""

    trains: tuple[str, ...]
    fresh_text: bool
    lr: float


STAGES = {
    "base": Stage(("unet",), fresh_text=False, lr=1e-4),
    "stage1": Stage(("text_encoder",), fresh_text=True, lr=1e-4),
    "stage2": Stage(("text_encoder", "unet"), fresh_text=False, lr=1e-5),
}
# x_0 (n, c, h, w), ids (n, tokens), keys (n)
Source = Callable[[int, np.random.Generator], tuple[torch.Tensor, torch.Tensor, list[str]]]


def fresh_text_encoder(config: CLIPTextConfig, tokenizer: Tokenizer) -> CLIPTextModel:
    """A text encoder of the same shape as `config`'s, with random weights, for the tokens of `tokenizer`."""
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
    """The scheduler that adds noise in training, for a folder's scheduler_config.json."""
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
    **settings: Any,
) -> None:
    """Train the parts that stage `name` of STAGES names, in place, to their averaged weights.

    `settings` are those of `train_denoiser`; see there.
    """
    model = Denoiser(text_encoder, unet, scheduler, min_snr)
    set_trained(model, STAGES[name].trains)
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
    """Train what is not frozen of `model` under the diffusion loss.

    `source(step, rng)` gives the batches; a share `dropout` of their ids is replaced by `empty` (tokens), the ids of an
    empty caption, for guidance (arXiv 2207.12598, sec. 3.2). `timestep(t, step)` may move the uniform timesteps.
    `data`, `on_save`, `terms` and what is raised are `fit`'s.
    """
    timesteps = model.scheduler.config.num_train_timesteps

    begun = {"dropout": dropout, "min_snr": model.min_snr, **terms}

    def loss_of(model: torch.nn.Module, step: int, rng: np.random.Generator) -> tuple[torch.Tensor, dict[str, float]]:
        x_0, ids, keys = source(step, rng)
        eps, t, u = draws(keys, plan.seed, step, tuple(x_0.shape[1:]), timesteps)
        ids = torch.where(u[:, None] < dropout, empty, ids)
        return model(*(x.to(accelerator.device) for x in (x_0, ids, eps, timestep(t, step)))), {}

    trainer.train(name, model, loss_of, plan, folder, accelerator, on_save=on_save, data=data, terms=begun)


def freeze(vae: AutoencoderKL, accelerator: Accelerator) -> None:
    """Put a VAE, which no stage trains, on the device in the type that mixed precision computes in: autocast would cast
    all its weights at every step.
    """
    dtype = {"bf16": torch.bfloat16, "fp16": torch.float16}.get(accelerator.mixed_precision, torch.float32)
    vae.requires_grad_(False).to(accelerator.device, dtype)


def latents_of(stream: Stream, vae: AutoencoderKL, tokenizer: Tokenizer, seed: int = 0) -> Source:
    """Batches of a stream as latents and token ids, encoded as they come."""

    def source(step: int, rng: np.random.Generator) -> tuple[torch.Tensor, torch.Tensor, list[str]]:
        batch = next(stream)
        with torch.no_grad():
            posterior = vae.encode(batch.pixels.to(vae.device, vae.dtype)).latent_dist
            noise = draws(batch.keys, seed, -1, tuple(posterior.mean.shape[1:]), 1)[0]
            x_0 = (posterior.mean + posterior.std * noise.to(vae.device)).float() * vae.config.scaling_factor
        return x_0, torch.tensor([tokenizer(text).ids for text in batch.captions]), batch.keys

    return source
