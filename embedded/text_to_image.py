"""Train the embedded model's text encoders and UNet, in the stages of `jsd.train.stages`.

Stable Diffusion begins with a text encoder that knows pictures, CLIP's. This model has none, so here `base` trains an
English text encoder together with the UNet. `stage1` and `stage2` do what they do for any model.
"""

from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import torch
import torch.nn.functional as F
from accelerate import Accelerator

from embedded.training_data import Bucket, source
from jsd.train import stages
from jsd.train.parts import Parts
from jsd.train.plots import draw_curve
from jsd.train.trainer import Plan

MIN_SNR = 5.0
NOISY = 0.8  # timesteps are T * u ** NOISY with u uniform in [0, 1): noisy ones are a little more frequent
LEVELS = (999, 700, 400)  # the timesteps at which `worth` measures


@dataclass(frozen=True)
class StagePlan:
    """How a stage is trained: the language of its captions, the parts that it trains, its plan, and whether it goes on
    with the text encoder of the stage before.
    """

    language: str
    trains: tuple[str, ...]
    plan: Plan
    begins_with_text: bool = False


def _plan(lr: float, muon: float, ema: float, seed: int) -> Plan:
    return Plan(10**9, lr, muon=muon, ema=ema, seed=seed, flat=0.6, save_every=10**9, save_seconds=200)


STAGES = {
    "base": StagePlan("en", ("text_encoder", "unet"), _plan(7e-4, 2e-3, 0.999, 8)),
    "stage1": StagePlan("ja", ("text_encoder",), _plan(8e-4, 2e-3, 0.998, 10)),
    "stage2": StagePlan("ja", ("text_encoder", "unet"), _plan(6e-4, 1.5e-3, 0.9995, 11), begins_with_text=True),
}


def train_stage(
    name: str,
    parts: Parts,
    buckets: list[Bucket],
    batch: int,
    seconds: float,
    folder: Path,
    accelerator: Accelerator,
    terms: Mapping[str, Any],
    draw: Callable[[Path], None],
    predict: Callable[..., torch.Tensor] | None = None,
) -> None:
    """Train the text encoder, the UNet or both of `parts` in place, as STAGES[name] says, for so many seconds.

    `draw(file)` draws samples whenever the stage is saved. `terms` are what a resumed run has to share. `predict` may
    take the UNet's place (see `jsd.train.diffusion.Denoiser`).
    """
    stage, scheduler = STAGES[name], stages.noise_schedule(parts.scheduler_config)
    last = scheduler.config.num_train_timesteps

    def show(step: int) -> None:
        draw(folder / f"{name}-{step:06d}-samples.png")
        draw_curve(folder / f"{name}.jsonl", folder / f"{name}.png")

    stages.train_stage(
        name,
        parts.text_encoder,
        parts.unet,
        scheduler,
        source(buckets, stage.language, batch),
        torch.tensor(parts.tokenizer("").ids, device=accelerator.device),
        replace(stage.plan, seconds=seconds),
        folder,
        accelerator,
        min_snr=MIN_SNR,
        trains=stage.trains,
        predict=predict,
        timestep=lambda t, step: (last * (t / last) ** NOISY).long(),
        on_save=show,
        terms={"batch": batch, **terms},
    )
    for model in (parts.text_encoder, parts.unet):
        model.requires_grad_(True)


@torch.no_grad()
def worth(parts: Parts, bucket: Bucket, language: str, accelerator: Accelerator, count: int = 512) -> dict[str, float]:
    """Return what the captions are worth to the UNet: its mean square error in predicting the velocity, with the right,
    a wrong and an empty caption, at each of LEVELS. The keys are "999 right", "999 wrong", "999 none" and so on.
    """
    scheduler = stages.noise_schedule(parts.scheduler_config)
    x_0, ids = bucket.latents[:count].float(), bucket.ids[language][:count, 0].long()
    empty = torch.tensor(parts.tokenizer("").ids, device=ids.device).expand_as(ids)
    eps = torch.randn(x_0.shape, generator=torch.Generator().manual_seed(1)).to(x_0.device)
    found = {}
    for level in LEVELS:
        t = torch.full((len(x_0),), level, device=x_0.device)
        x_t, velocity = scheduler.add_noise(x_0, eps, t), scheduler.get_velocity(x_0, eps, t)
        for what, used in (("right", ids), ("wrong", ids.roll(1, 0)), ("none", empty)):
            with accelerator.autocast():
                states = parts.text_encoder(used).last_hidden_state
                prediction = parts.unet(x_t, t, states).sample
            found[f"{level} {what}"] = round(F.mse_loss(prediction.float(), velocity).item(), 4)
    return found
