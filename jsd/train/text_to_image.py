"""The embedded model's text encoder and UNet: a warm-up of the text by the pictures, then the diffusion loss.

Without the warm-up the UNet ignores the text for a long time. The log shows the loss at the noisiest step with the
right, a wrong and no caption: the average loss hides whether the text is used at all.
"""

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
import torch.nn.functional as F
from accelerate import Accelerator
from diffusers import DDPMScheduler, UNet2DConditionModel
from diffusers.models.attention_processor import AttnProcessor
from transformers import CLIPTextConfig, CLIPTextModel

from jsd.tokenizer import Tokenizer
from jsd.train.autoencoder import CHANNELS
from jsd.train.loop import Plan, fit

WIDTH = 192
# Plain scaled_linear betas, which every sampler supports, but ending noisier than Stable Diffusion's: these latents are
# few and strongly correlated, so at SD's last step (signal 0.068) one could still see the ground's colour. Here the
# signal is 0.015.
NOISE_SCHEDULE = {
    "num_train_timesteps": 1000,
    "beta_start": 0.00085,
    "beta_end": 0.02,
    "beta_schedule": "scaled_linear",
    "prediction_type": "v_prediction",
    "timestep_spacing": "trailing",
    "clip_sample": False,
}


@dataclass
class Batches:
    """What a training step draws from. `latents` (n, CHANNELS, 8, 8); `weights` (n), how often each is drawn, sums to
    1.

    `caption(i, rng)` gives a caption for picture i.
    """

    latents: torch.Tensor
    weights: np.ndarray
    caption: Callable[[int, np.random.Generator], str]
    tokenizer: Tokenizer

    def draw(self, batch: int, rng: np.random.Generator, dropout: float = 0.0) -> tuple[torch.Tensor, torch.Tensor]:
        """Latents (batch, CHANNELS, 8, 8) and token ids (batch, max_length); a share `dropout` of the captions
        is empty.
        """
        chosen = rng.choice(len(self.latents), batch, p=self.weights)
        texts = ["" if rng.random() < dropout else self.caption(i, rng) for i in chosen]
        return self.latents[torch.from_numpy(chosen)].float(), self.ids(texts)

    def ids(self, texts: list[str]) -> torch.Tensor:
        return torch.tensor([self.tokenizer(text).ids for text in texts])


def make_text_encoder(tokenizer: Tokenizer) -> CLIPTextModel:
    """A CLIPTextModel of 192 x 3 layers for the tokenizer's ids."""
    return CLIPTextModel(
        CLIPTextConfig(
            vocab_size=tokenizer.vocabulary_size,
            hidden_size=WIDTH,
            intermediate_size=4 * WIDTH,
            num_hidden_layers=3,
            num_attention_heads=6,
            max_position_embeddings=tokenizer.max_length,
            projection_dim=WIDTH,
            pad_token_id=tokenizer.pad_id,
            bos_token_id=None,
            eos_token_id=tokenizer.eos_id,
        )
    )


def make_unet() -> UNet2DConditionModel:
    """A UNet2DConditionModel of 11.8 M parameters on 8 x 8 x 64 latents, with the pooled text added to the time
    embedding.
    """
    unet = UNet2DConditionModel(
        sample_size=8,
        in_channels=CHANNELS,
        out_channels=CHANNELS,
        block_out_channels=(144, 192),
        down_block_types=("DownBlock2D", "CrossAttnDownBlock2D"),
        up_block_types=("CrossAttnUpBlock2D", "UpBlock2D"),
        layers_per_block=1,
        norm_num_groups=16,
        cross_attention_dim=WIDTH,
        attention_head_dim=(6, 6),
        resnet_time_scale_shift="scale_shift",
        addition_embed_type="text",
        addition_embed_type_num_heads=6,
    )
    for name, parameter in unet.named_parameters():
        if name.endswith(("conv2.weight", "conv2.bias", "proj_out.weight", "proj_out.bias")):
            torch.nn.init.zeros_(parameter)  # residual branches start at nothing
    return unet


def pretrain_text(
    text_encoder: CLIPTextModel,
    data: Batches,
    plan: Plan,
    folder: Path,
    accelerator: Accelerator,
    batch: int = 192,
) -> None:
    """Teach the text encoder what the pictures look like before there is a UNet.

    From its mean state, which is what the UNet's pooled text starts from, a small network is to predict the picture's
    latents; and each caption's is to be nearest to its own picture's (CLIP, arXiv 2103.00020, sec. 2.3). With the
    second alone, captions can be told apart, but what they show takes the UNet very long to learn.
    """
    torch.manual_seed(plan.seed)
    size = data.latents[0].numel()
    heads = torch.nn.ModuleDict(
        {
            "latents": torch.nn.Sequential(torch.nn.Linear(WIDTH, 1024), torch.nn.GELU(), torch.nn.Linear(1024, size)),
            "picture": torch.nn.Sequential(torch.nn.Linear(size, 512), torch.nn.GELU(), torch.nn.Linear(512, WIDTH)),
        }
    )

    def loss_of(step: int, rng: np.random.Generator) -> tuple[torch.Tensor, dict[str, float]]:
        latents, ids = data.draw(batch, rng)
        latents = latents.flatten(1)
        state = text_encoder(ids).last_hidden_state.mean(1)
        mse = F.mse_loss(heads["latents"](state).float(), latents)
        text, picture = (F.normalize(x.float(), dim=1) for x in (state, heads["picture"](latents)))
        logits, target = 10 * text @ picture.T, torch.arange(batch)
        contrast = (F.cross_entropy(logits, target) + F.cross_entropy(logits.T, target)) / 2
        right = (logits.argmax(1) == target).float().mean().item()
        return mse + 0.1 * contrast, {"mse": mse.item(), "right": right}

    both = torch.nn.ModuleDict({"text": text_encoder, "heads": heads})
    fit("text", both, loss_of, plan, folder, accelerator)


def train_diffusion(
    text_encoder: CLIPTextModel,
    unet: UNet2DConditionModel,
    data: Batches,
    plan: Plan,
    folder: Path,
    accelerator: Accelerator,
    batch: int = 64,
    dropout: float = 0.1,
    frozen: float = 0.5,
    on_save: Callable[[int], None] = lambda step: None,
) -> None:
    """Train both under the v-prediction loss (arXiv 2202.00512, sec. 4) with caption dropout (arXiv 2207.12598).

    The text encoder stays as it is for a share `frozen` of the steps: the first gradients of a UNet that can't read yet
    undid what the warm-up taught it (its retrieval fell from 0.95 to 0.58 in 1000 steps, and the UNet learnt slowly).
    """
    unet.set_attn_processor(AttnProcessor())  # on 4 x 4 positions plain attention trains faster than the fused kernel
    noise = DDPMScheduler(**NOISE_SCHEDULE)
    probe = data.draw(64, np.random.default_rng(1))

    def error(x_0: torch.Tensor, ids: torch.Tensor, t: torch.Tensor) -> torch.Tensor:
        eps = torch.randn_like(x_0)
        v = unet(noise.add_noise(x_0, eps, t), t, text_encoder(ids).last_hidden_state).sample
        return F.mse_loss(v.float(), noise.get_velocity(x_0, eps, t))

    def loss_of(step: int, rng: np.random.Generator) -> tuple[torch.Tensor, dict[str, float]]:
        text_encoder.requires_grad_(step >= frozen * plan.steps)
        x_0, ids = data.draw(batch, rng, dropout)
        figures = {}
        if step % 250 == 0:
            with torch.no_grad():
                last = torch.full((64,), 999)
                shuffled, empty = probe[1].roll(1, 0), data.ids([""] * 64)
                for name, other in (("right", probe[1]), ("wrong", shuffled), ("none", empty)):
                    figures[name] = error(probe[0], other, last).item()
        # At first mostly noisy steps: only there does the UNet have to read what the picture shows. At last nearly all.
        t = torch.from_numpy((1000 * rng.random(batch) ** (0.2 + 0.6 * step / plan.steps)).astype(np.int64))
        return error(x_0, ids, t), figures

    groups = [
        {"params": list(unet.parameters()), "lr_scale": 1.0},
        {"params": list(text_encoder.parameters()), "lr_scale": 0.1},
    ]
    both = torch.nn.ModuleDict({"text": text_encoder, "unet": unet})
    fit("diffusion", both, loss_of, plan, folder, accelerator, groups, on_save)
    unet.set_default_attn_processor()
