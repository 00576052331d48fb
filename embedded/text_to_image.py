"""Train the embedded model's text encoders and UNet.

`pretrain_text` trains the English text encoder first. Without this the UNet ignores the text for a long time. Stable
Diffusion has no such step, because its text encoder is CLIP's, which had learnt from pictures before. `train_stage`
then runs one of the stages of `jsd.train.stages`.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
import torch.nn.functional as F
from accelerate import Accelerator
from diffusers import DDPMScheduler, UNet2DConditionModel
from diffusers.models.attention_processor import AttnProcessor
from transformers import CLIPTextModel

from embedded.captions import Language
from embedded.networks import NOISE_SCHEDULE, WIDTH
from embedded.preview import draw_preview
from embedded.training_data import Batches, TrainingData
from jsd.train import stages, trainer
from jsd.train.plots import draw_curve
from jsd.train.trainer import Plan

BATCH = 64


@dataclass(frozen=True)
class StagePlan:
    """How one stage is trained.

    `plan`: steps, learning rate and so on.
    `share_of_two`: the share of pictures that show two concepts.
    `noisy`: the exponent of the timestep distribution, t = T * u ** noisy with u uniform in [0, 1) and T the number of
    timesteps. It moves linearly from the first value to the second during the stage. 1 samples all timesteps equally;
    smaller values sample noisy timesteps more often.
    """

    plan: Plan
    share_of_two: float
    noisy: tuple[float, float]


def pretrain_text(
    text_encoder: CLIPTextModel,
    data: Batches,
    plan: Plan,
    folder: Path,
    accelerator: Accelerator,
    batch: int = 192,
) -> None:
    """Teach the text encoder how the pictures look, before there is a UNet. The text encoder is trained in place.

    The mean of a caption's last hidden states gets two losses. First, a small network has to predict the picture's
    latents from this mean. Second, the mean has to be more similar to its own picture than to the others in the batch
    (CLIP, Radford et al. 2021, arXiv 2103.00020, sec. 2.3). docs/embedded.md tells why the second loss alone is not
    enough.
    """
    torch.manual_seed(plan.seed)
    size = data.latents[0].numel()
    heads = torch.nn.ModuleDict(
        {
            "latents": torch.nn.Sequential(torch.nn.Linear(WIDTH, 1024), torch.nn.GELU(), torch.nn.Linear(1024, size)),
            "picture": torch.nn.Sequential(torch.nn.Linear(size, 512), torch.nn.GELU(), torch.nn.Linear(512, WIDTH)),
        }
    )

    def loss_of(model: torch.nn.Module, step: int, rng: np.random.Generator) -> tuple[torch.Tensor, dict[str, float]]:
        latents, ids, _ = data.draw(batch, rng)
        latents, ids = latents.flatten(1).to(accelerator.device), ids.to(accelerator.device)
        state = text_encoder(ids).last_hidden_state.mean(1)
        mse = F.mse_loss(heads["latents"](state).float(), latents)
        text, picture = (F.normalize(x.float(), dim=1) for x in (state, heads["picture"](latents)))
        logits, target = 10 * text @ picture.T, torch.arange(batch, device=text.device)
        contrast = (F.cross_entropy(logits, target) + F.cross_entropy(logits.T, target)) / 2
        right = (logits.argmax(1) == target).float().mean().item()
        return mse + 0.1 * contrast, {"mse": mse.item(), "right": right}

    both = torch.nn.ModuleDict({"text": text_encoder, "heads": heads})
    trainer.train("text", both, loss_of, plan, folder, accelerator, terms={"batch": batch})


def train_stage(
    name: str,
    stage: StagePlan,
    data: TrainingData,
    language: Language,
    text_encoder: CLIPTextModel,
    unet: UNet2DConditionModel,
    accelerator: Accelerator,
    earlier: Mapping[str, Any],
) -> None:
    """Train the text encoder, the UNet or both in place, as the stage `name` of `jsd.train.stages` says.

    The captions are in `language`. Every checkpoint gets a preview and the loss curve. `earlier` holds the terms
    (steps, learning rate ...) of the trainings before this one. A checkpoint that records other
    terms is refused.
    """
    plan, batches = stage.plan, data.batches(language, stage.share_of_two)
    scheduler = DDPMScheduler(**NOISE_SCHEDULE)
    last = scheduler.config.num_train_timesteps
    unet.set_attn_processor(AttnProcessor())  # for 4 x 4 positions, plain attention trains faster than the fused kernel

    def timestep(t: torch.Tensor, step: int) -> torch.Tensor:
        first, final = stage.noisy
        return (last * (t / last) ** (first + (final - first) * step / plan.steps)).long()

    def show(step: int) -> None:
        draw_preview(data, language, text_encoder, unet, data.work / f"{name}-preview-{step:06d}.png")
        draw_curve(data.work / f"{name}.jsonl", data.work / f"{name}.png")

    stages.train_stage(
        name,
        text_encoder,
        unet,
        scheduler,
        lambda step, rng: batches.draw(BATCH, rng),
        batches.ids([""])[0],
        plan,
        data.work,
        accelerator,
        timestep=timestep,
        on_save=show,
        terms={"batch": BATCH, "two": stage.share_of_two, "noisy": stage.noisy, "after": earlier},
    )
    unet.set_default_attn_processor()
    unet.requires_grad_(True)
    text_encoder.requires_grad_(True)
