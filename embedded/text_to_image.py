"""The embedded model's text encoder and UNet, the batches they learn from, and the English text encoder's warm-up.

Without the warm-up the UNet ignores the text for a long time; Stable Diffusion's, too, had learnt from pictures before
(it is CLIP's).
"""

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
import torch.nn.functional as F
from accelerate import Accelerator
from diffusers import UNet2DConditionModel
from transformers import CLIPTextConfig, CLIPTextModel

from embedded.autoencoder import CHANNELS
from jsd.tokenizer import Tokenizer
from jsd.train import trainer
from jsd.train.trainer import Plan

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

    def draw(self, batch: int, rng: np.random.Generator) -> tuple[torch.Tensor, torch.Tensor, list[str]]:
        """Latents (batch, CHANNELS, 8, 8), token ids (batch, max_length), and a key for each sample drawn."""
        chosen = rng.choice(len(self.latents), batch, p=self.weights)
        texts = [self.caption(i, rng) for i in chosen]
        keys = [f"{place} {i}" for place, i in enumerate(chosen)]  # the same picture may be drawn twice
        return self.latents[torch.from_numpy(chosen)].float(), self.ids(texts), keys

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

    def loss_of(model: torch.nn.Module, step: int, rng: np.random.Generator) -> tuple[torch.Tensor, dict[str, float]]:
        latents, ids, _ = data.draw(batch, rng)
        latents = latents.flatten(1)
        state = text_encoder(ids).last_hidden_state.mean(1)
        mse = F.mse_loss(heads["latents"](state).float(), latents)
        text, picture = (F.normalize(x.float(), dim=1) for x in (state, heads["picture"](latents)))
        logits, target = 10 * text @ picture.T, torch.arange(batch)
        contrast = (F.cross_entropy(logits, target) + F.cross_entropy(logits.T, target)) / 2
        right = (logits.argmax(1) == target).float().mean().item()
        return mse + 0.1 * contrast, {"mse": mse.item(), "right": right}

    both = torch.nn.ModuleDict({"text": text_encoder, "heads": heads})
    trainer.train("text", both, loss_of, plan, folder, accelerator, terms={"batch": batch})
